"""Records of servers: where a field is left out nothing is accepted, and no field can be left out unseen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import casefile
import judging
import net
import pytest

from ckpt_doctor.facts.servers import FIELDS, SERVERS, Server

FIFTH = Server("fifth==1.0")
FILLED = [(server, field) for server in SERVERS for field in FIELDS if getattr(server, field) != getattr(FIFTH, field)]


class Question(NamedTuple):
    """An adapter that servers are asked about, and the ids of those whose outcome is written down."""

    name: str
    adapter: Any
    ids: frozenset[str]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    """All cases that ask for a server, then the net."""
    folder = tmp_path_factory.mktemp("cases")
    cases = [casefile.read(path, folder) for path in casefile.PATHS]
    pool = [Question(case.name, case.adapter, case.asked - judging.PEFT) for case in cases]
    pool += [Question(question.name, question.adapter, question.servers) for question in net.questions(net.read())]
    return [question for question in pool if question.ids]


def test_a_server_without_a_fact_accepts_nothing(questions: list[Question]) -> None:
    for question in questions:
        assert judging.judgement(FIFTH, question.adapter)[1] != "accepts", question.name


@pytest.mark.parametrize("field", FIELDS)
def test_a_fact_alone_accepts_nothing(questions: list[Question], field: str) -> None:
    best = next(server for server in SERVERS if (server, field) in FILLED)
    one = FIFTH._replace(**{field: getattr(best, field)})
    for question in questions[:100]:
        assert judging.judgement(one, question.adapter)[1] != "accepts", question.name


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
def test_each_field_is_held(questions: list[Question], server: Server) -> None:
    """Without it a case stops the server otherwise, or a verdict in the net is another."""
    about = [question for question in questions if server.id in question.ids]
    left = {field for other, field in FILLED if other is server}
    for question in about:
        whole = judging.judgement(server, question.adapter)
        for field in sorted(left):
            without = server._replace(**{field: getattr(FIFTH, field)})
            if judging.judgement(without, question.adapter) != whole:
                left.remove(field)
    assert not left


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
def test_each_fact_has_a_source(server: Server) -> None:
    filled = {field for other, field in FILLED if other is server}
    assert server.sources.keys() - {"rank_flags"} == filled
    assert ("rank_flags" in server.sources) == bool(server.rank_flags)


def entries() -> Iterator[tuple[Server, str, str]]:
    """Each entry of each table of each record, and each name in its `way`."""
    for server, field in FILLED:
        value = getattr(server, field)
        if isinstance(value, frozenset) or (isinstance(value, dict) and field != "fused"):
            yield from ((server, field, entry) for entry in value)


def test_each_entry_of_a_table_is_held(questions: list[Question]) -> None:
    """With -s, which: an entry is held as a field is."""
    left = list(entries())
    for question in questions:
        whole: dict[str, Any] = {}
        for server, field, entry in [one for one in left if one[0].id in question.ids]:
            value = getattr(server, field)
            kept = value - {entry} if field == "way" else {key: value[key] for key in value.keys() - {entry}}
            if server.id not in whole:
                whole[server.id] = judging.judgement(server, question.adapter)
            if judging.judgement(server._replace(**{field: kept}), question.adapter) != whole[server.id]:
                left.remove((server, field, entry))
    for server, field, entry in left:
        print(f"\n{server.id}: {field}[{entry!r}]", end="")
    assert not left
