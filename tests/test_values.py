"""What the numbers of tensors amount to, held against torch's own reading of the same bytes; what `--values` finds, and
what is refused for it.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ADAPTERS, FIXTURES
from safetensors.torch import load_file, save_file
from test_compat import VENVS

import ckpt_doctor
from ckpt_doctor import AdapterError, AdapterRejected
from ckpt_doctor.adapter import FileRange, Question, TensorInfo
from ckpt_doctor.adapter.runtimes import upto
from ckpt_doctor.files import loader, numbers
from ckpt_doctor.files.beside import Work
from ckpt_doctor.files.numbers import Numbers
from ckpt_doctor.rules.weights import KEEPING_FP32
from ckpt_doctor.verbs.scan import examine

PLAIN = FIXTURES / "lora-plain-0.21.2"
ZERO = FIXTURES / "adalora-rank0-0.21.2"
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
PIECE = 64
"""Bytes at a time in these tests, so that small tensors have edges of blocks."""


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "CHUNK", PIECE)
    monkeypatch.setattr("ckpt_doctor.files.streams.CHUNK", PIECE)
    monkeypatch.setattr(numbers, "MOST_ALONE", 0)  # two read


def read(path: Path, dtype: str, shape: tuple[int, ...], start: int = 0) -> Numbers:
    """What a tensor in a file holds."""
    length = math.prod(shape) * DTYPES[dtype].itemsize
    return numbers.numbers({"x": TensorInfo(dtype, shape, FileRange(str(path), start, length))})["x"]


def by_torch(tensor: torch.Tensor) -> Numbers:
    """The same, as torch has it."""
    values = tensor.to(torch.float64)
    finite = values[values.isfinite()].abs()
    largest = float(finite.max()) if len(finite) else 0.0
    found = Numbers(largest, int(values.isnan().sum()), int(values.isinf().sum()))
    if values.dim() < 2 or found.is_zero:
        return found
    marks = (values != 0).flatten(2) if values.dim() > 2 else (values != 0)[:, :, None]
    corners = not (values.flatten()[0] and values.flatten()[-1])
    rows, columns = (run(marks.any(dim=2).any(dim=axis)) if corners else None for axis in (1, 0))
    return found._replace(rows=rows, columns=columns)


def run(marks: torch.Tensor) -> tuple[int, int] | None:
    places = marks.nonzero().flatten().tolist()
    if not 0 < len(places) < len(marks) or places[-1] - places[0] + 1 != len(places):
        return None
    return places[0], places[-1] + 1


def raw(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().flatten().view(torch.uint8).tolist())


SHAPES = [(1,), (3, 5), (64, 4), (5, 7, 3, 3), (1, 1), (129,), (37, 41)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("small_pieces")
def test_any_bytes_are_read_as_torch_reads_them(tmp_path: Path, dtype: str) -> None:
    torch.manual_seed(0)
    path = tmp_path / "x"
    for shape in SHAPES:
        for _ in range(5):
            size = math.prod(shape) * DTYPES[dtype].itemsize
            data = torch.randint(0, 256, (size,), dtype=torch.uint8)
            path.write_bytes(b"odd" + bytes(data.tolist()))
            assert read(path, dtype, shape, 3) == by_torch(data.view(DTYPES[dtype]).reshape(shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("small_pieces")
def test_what_is_planted_is_found_wherever_it_is(tmp_path: Path, dtype: str) -> None:
    torch.manual_seed(0)
    path = tmp_path / "x"
    edge = PIECE // DTYPES[dtype].itemsize
    shape = (3 * edge + 1, 3)
    count = math.prod(shape)
    healthy = torch.rand(count).clamp(0.25).mul(torch.tensor([1, -1]).repeat(count)[:count]).to(DTYPES[dtype])
    path.write_bytes(raw(healthy))
    assert read(path, dtype, shape) == by_torch(healthy.reshape(shape))
    assert read(path, dtype, shape)[1:] == (0, 0, None, None)
    infinite = () if dtype == "F8_E4M3" else (math.inf, -math.inf)
    for place in (0, 1, edge - 1, edge, 2 * edge - 1, 2 * edge, count - 2, count - 1):
        for planted in (math.nan, -math.nan, *infinite):
            tensor = healthy.clone()
            tensor[place] = planted
            path.write_bytes(raw(tensor))
            found = read(path, dtype, shape)
            assert (found.nan, found.infinite) == (int(math.isnan(planted)), int(math.isinf(planted)))
            assert found == by_torch(tensor.reshape(shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("small_pieces")
def test_rows_and_columns_of_zeros_are_found(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "x"
    for height, width in ((8, 4), (7, 33), (40, 3), (2, 200)):
        for first, last in ((0, height // 2), (height // 2, height), (1, height), (height - 1, height), (0, height)):
            tensor = torch.zeros(height, width)
            tensor[first:last] = 1
            tensor[first, 0] = -0.0  # a row is none for one zero in it
            for matrix in (tensor, tensor.T):
                path.write_bytes(raw(matrix.to(DTYPES[dtype])))
                found = read(path, dtype, tuple(matrix.shape))
                assert found == by_torch(matrix)
                runs = found.rows if matrix is tensor else found.columns
                assert runs == ((first, last) if last - first < height else None)
    path.write_bytes(raw(torch.zeros(8, 4).to(DTYPES[dtype])))
    assert read(path, dtype, (8, 4)) == Numbers(0.0)
    assert read(path, dtype, (8, 4)).is_zero


def test_one_zero_at_a_corner_has_no_tensor_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "_zero_sides", lambda *_: pytest.fail("read again"))
    tensor = torch.ones(40, 30)
    tensor[0, 0] = tensor[-1, -1] = 0
    (tmp_path / "x").write_bytes(raw(tensor))
    assert read(tmp_path / "x", "F32", (40, 30)) == Numbers(1.0)


@pytest.mark.parametrize("ends", [OSError(5, "Input/output error"), AdapterError("it became shorter")])
def test_a_reader_that_fails_ends_the_other(monkeypatch: pytest.MonkeyPatch, ends: Exception) -> None:
    """What it is at has no end here."""

    def pieces(info: TensorInfo, *_: Any) -> Iterator[bytes]:
        while info.shape == (2,):
            yield bytes(8)
        raise ends

    monkeypatch.setattr(numbers, "MOST_ALONE", 0)
    monkeypatch.setattr(numbers, "_pieces", pieces)
    tensors = {str(size): TensorInfo("F32", (size,), FileRange(__file__, 0, 4 * size)) for size in (2, 1)}
    with pytest.raises(type(ends)) as raised:
        numbers.numbers(tensors)
    assert raised.value is ends
    assert not [thread for thread in threading.enumerate() if isinstance(thread, Work)]


def test_the_edge_of_a_real_block(tmp_path: Path) -> None:
    tensor = torch.ones((1 << 20) + 7, dtype=torch.bfloat16)
    for place in ((1 << 19) - 1, 1 << 19, len(tensor) - 1):
        changed = tensor.clone()
        changed[place] = math.nan
        (tmp_path / "x").write_bytes(changed.view(torch.uint8).numpy().tobytes())
        assert read(tmp_path / "x", "BF16", (len(tensor),)).nan == 1


VIEWS = {
    "transposed": lambda t: t.T,
    "middle": lambda t: t[3:9, 2:5],
    "every second": lambda t: t[::2, 1::3],
    "permuted": lambda t: t.reshape(4, 3, 7, 2).permute(3, 1, 0, 2),
    "row": lambda t: t[5],
    "overlapping": lambda t: t.as_strided((3, 3), (2, 2)),
    "one after the other": lambda t: t.flatten()[4:100].reshape(8, 12).T,
}


@pytest.mark.parametrize("planted", [0.5, math.nan, math.inf, 0.0])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.usefixtures("small_pieces")
def test_views_of_a_bin_are_read_as_torch_reads_them(tmp_path: Path, view: str, planted: float) -> None:
    torch.manual_seed(0)
    for at in ((0, 0), (4, 4), (5, 3), (11, 13)):
        whole = torch.rand(12, 14) + 0.1
        whole[at] = planted
        torch.save({"whole": whole, "view": VIEWS[view](whole)}, tmp_path / "x.bin")
        found = numbers.numbers(loader.read_weights(str(tmp_path / "x.bin")))
        assert found["whole"] == by_torch(whole)
        assert found["view"] == by_torch(VIEWS[view](whole))


def test_views_that_repeat_their_file_are_not_read(tmp_path: Path) -> None:
    storage = torch.rand(2000)
    torch.save({str(at): storage.as_strided((17, 100), (99, 1), at) for at in range(200)}, tmp_path / "x.bin")
    start = time.process_time()
    with pytest.raises(AdapterError, match="views that read its bytes more than 8 times"):
        numbers.numbers(loader.read_weights(str(tmp_path / "x.bin")))
    torch.save({"x": torch.rand(1 << 21).as_strided((1 << 20, 1 << 20), (1, 1))}, tmp_path / "x.bin")
    with pytest.raises(AdapterError, match="repeats numbers of its storage"):
        loader.read_weights(str(tmp_path / "x.bin"))
    assert time.process_time() - start < 5


def test_whole_numbers_and_what_is_empty_are_left_out(tmp_path: Path) -> None:
    torch.save({"whole": torch.ones(3, dtype=torch.int64), "empty": torch.ones(0, 3)}, tmp_path / "x.bin")
    assert numbers.numbers(loader.read_weights(str(tmp_path / "x.bin"))) == {}


def test_a_file_that_became_shorter_is_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(100))
    with pytest.raises(AdapterError, match="became shorter"):
        read(tmp_path / "x", "F32", (100,))


def test_a_file_that_is_written_to_meanwhile_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(PLAIN, tmp_path / "a")
    whole = numbers.numbers

    def slowly(tensors: Any) -> Any:
        with (folder / "adapter_model.safetensors").open("ab") as file:
            file.write(b"x")
        return whole(tensors)

    monkeypatch.setattr(numbers, "numbers", slowly)
    report = examine(str(folder), Question(values=True))
    assert report.error == f"{folder} was written to by others meanwhile, so it was left as it is; try again"


def with_nan(folder: Path, like: Path = PLAIN) -> Path:
    """A copy of an adapter, in which the last number is NaN."""
    shutil.copytree(like, folder)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\xc0\x7f")
    return folder


@pytest.mark.parametrize("name", ADAPTERS)
def test_healthy_adapters_are_as_before(name: str) -> None:
    folder = str(FIXTURES / name)
    before, after = examine(folder, Question()), examine(folder, Question(values=True))
    assert [f for f in after.findings if f not in before.findings and f.code != "CD412"] == []
    assert after.verdicts == before.verdicts
    assert after.numbers.keys() == {
        key for key, (_, shape) in loader.forms(after.subject.tensors).items() if 0 not in shape
    }  # type: ignore[union-attr]


def test_keys_whose_values_are_no_numbers_are_named_in_the_order_of_the_config(tmp_path: Path) -> None:
    """That of a set is another in each process."""
    shutil.copytree(PLAIN, tmp_path / "a")
    path = tmp_path / "a/adapter_config.json"
    keys = ("lora_alpha", *(f"value{at}" for at in (7, 3, 5, 1, 6, 2, 4)), "alpha_pattern")
    values = {**dict.fromkeys(keys, math.inf), "alpha_pattern": {"q_proj": math.inf, "v_proj": math.nan}}
    config = {key: value for key, value in json.loads(path.read_text()).items() if key not in values}
    path.write_text(json.dumps({**config, **values}))
    named = [found.config_keys for found in examine(str(tmp_path / "a")).findings if found.code == "CD410"]
    assert named == [keys]


def test_values_are_read_where_they_are_asked_for(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_nan(tmp_path / "nan")
    assert run("scan", folder).exit_code == 0
    result = run("scan", folder, "--values")
    assert result.exit_code == 1
    assert "error CD410 non-finite, misloaded by PEFT 0.2.0" in result.stdout
    assert "next: take a checkpoint from before the loss was NaN" in " ".join(result.stdout.split())
    assert run("scan", folder, "--values", "--for", "peft==0.9.0").exit_code == 1
    monkeypatch.setenv("CKPT_DOCTOR_VALUES", "1")
    assert run("scan", folder).exit_code == 1
    monkeypatch.delenv("CKPT_DOCTOR_VALUES")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ckpt-doctor.toml").write_text("values = true\n")
    assert run("scan", folder).exit_code == 1


def test_the_json_has_what_the_weights_hold(run: Any, scan: Any, tmp_path: Path) -> None:
    folder = with_nan(tmp_path / "nan")
    assert scan(folder)["values"] is None
    report = json.loads(run("scan", "--values", "--format", "json", folder).stdout)["reports"][0]
    found = examine(str(folder), Question(values=True)).numbers
    largest = max(found, key=lambda name: found[name].largest)
    values = {"nan": 1, "infinite": 0, "largest": found[largest].largest, "largest_in": largest}
    assert report["values"] == values
    assert report["verdicts"]["peft==0.21.2"] == "misloads"
    assert f"numbers up to {values['largest']:.3g}" in run("scan", "--values", folder).stdout


def test_adapters_with_one_header_are_read_one_by_one(run: Any, tmp_path: Path) -> None:
    for name in "abcdef":
        shutil.copytree(PLAIN, tmp_path / name)
    shutil.rmtree(tmp_path / "e")
    with_nan(tmp_path / "e")
    reports = json.loads(run("scan", "--values", "--format", "json", tmp_path).stdout)["reports"]
    failing = [Path(report["path"]).name for report in reports if report["values"]["nan"]]
    assert (failing, len(reports)) == (["e"], 6)


def test_in_code(tmp_path: Path) -> None:
    folder = with_nan(tmp_path / "nan")
    assert ckpt_doctor.scan(folder).verdicts["peft==0.21.2"] == "accepts"
    report = ckpt_doctor.scan(folder, values=True)
    assert report.verdicts["peft==0.21.2"] == "misloads"
    assert [finding.code for finding in next(ckpt_doctor.scan_tree(folder, values=True)).failing] == ["CD410"]


def test_nothing_is_made_of_what_is_no_number(run: Any, tmp_path: Path) -> None:
    for name, like in (("plain", PLAIN), ("zero", ZERO)):
        folder, out = with_nan(tmp_path / name, like), tmp_path / "out"
        for options in ((), ("--dry-run",), ("--for", "peft==0.9.0"), ("--to", "lora")):
            result = run("fix", folder, out, *options)
            assert result.exit_code == 1, options
            assert "CD410 non-finite: NaN in the weights" in result.stdout
            assert not out.exists()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = run("fix", "--in-place", folder)
    assert (result.exit_code, {path.name: path.read_bytes() for path in folder.iterdir()}) == (1, before)
    assert not ckpt_doctor.fix(folder, out)
    with pytest.raises(AdapterRejected, match="CD410 NaN in the weights"):
        ckpt_doctor.preload(folder, "peft==0.9.0")


def test_a_fix_of_a_doubt_about_numbers_goes_ahead(run: Any, tmp_path: Path) -> None:
    """It leaves them as they are, and says the doubt."""
    folder = shutil.copytree(PLAIN, tmp_path / "large")
    tensors = load_file(folder / "adapter_model.safetensors")
    next(iter(tensors.values()))[0] = 1e5
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    assert "CD414" in run("scan", folder, "--values", "-v", "--for", "peft==0.9.0").stdout
    result = run("fix", folder, tmp_path / "out", "--for", "peft==0.9.0")
    assert result.exit_code == 0, result.stdout
    assert "as before, CD414 fp16-overflow: 1 tensor with numbers that are infinity in fp16" in result.stdout
    assert run("compare", folder, tmp_path / "out").exit_code == 0


@pytest.mark.parametrize("same", [True, False])
def test_both_files_are_compared_whatever_their_size(tmp_path: Path, same: bool) -> None:
    folder = shutil.copytree(PLAIN, tmp_path / "a")
    tensors = {**load_file(folder / "adapter_model.safetensors"), "large": torch.rand(1 << 18)}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    if not same:
        tensors["large"] = tensors["large"].clone()
        tensors["large"][-1] = 2
    torch.save(tensors, folder / "adapter_model.bin")
    (before,) = [f for f in examine(str(folder), Question()).findings if f.code == "CD022"]
    assert "too large to compare" in before.message
    assert before.needs
    assert "--values" in before.needs
    after = [f for f in examine(str(folder), Question(values=True)).findings if f.code == "CD022"]
    assert [sorted(f.misloaded_by)[:1] for f in after] == ([] if same else [["peft==0.2.0"]])


IN_A_RELEASE = """
import json, sys, torch
from peft import PeftModel

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q = torch.nn.Linear(8, 8)

    def forward(self, x):
        return self.q(x)

for folder in sys.argv[1:]:
    torch.manual_seed(0)
    model = PeftModel.from_pretrained(Model().half(), folder)
    weights = model.state_dict()["base_model.model.q.lora_B.default.weight"].isfinite().all().item()
    outputs = model(torch.ones(1, 8, dtype=torch.float16)).isfinite().all().item()
    try:
        model.merge_and_unload(safe_merge=True)
        merge = ""
    except ValueError as error:
        merge = str(error)
    print(json.dumps([weights, outputs, merge]))
"""


@pytest.mark.compat
@pytest.mark.parametrize("venv", VENVS, ids=lambda venv: venv.name)
def test_what_releases_make_of_such_numbers(tmp_path: Path, venv: Path) -> None:
    """A model in fp16, as the pages say: NaN and infinity are loaded and computed, numbers that fp16 does not have are
    infinity where factors are cast to its type; a merge that is to be safe raises.
    """
    release = venv.name.replace("-", "==")
    if release in upto("0.5"):
        pytest.skip("has no safe_merge")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q"]}
    for name, number in {"healthy": 1.0, "nan": math.nan, "infinite": -math.inf, "large": 1e5}.items():
        b = torch.full((8, 2), 0.1)
        b[3, 1] = number
        tensors = {"lora_A": torch.full((2, 8), 1e-4), "lora_B": b}
        (tmp_path / name).mkdir()
        save_file(
            {f"base_model.model.q.{factor}.weight": tensor for factor, tensor in tensors.items()},
            tmp_path / name / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(config))
    folders = [str(tmp_path / name) for name in ("healthy", "nan", "infinite", "large")]
    command = [str(venv / "bin/python"), "-W", "ignore", "-c", IN_A_RELEASE, *folders]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    healthy, *broken, large = map(json.loads, result.stdout.splitlines())
    assert healthy == [True, True, ""]
    for weights, outputs, merge in broken:
        assert (weights, outputs) == (False, False)
        assert "NaNs detected in the merged weights. The adapter default seems to be broken" in merge
    if release in KEEPING_FP32:
        assert large == [True, True, ""]
    else:
        assert large[:2] == [False, False]
