"""Repositories of the Hugging Face Hub, each at one commit; by huggingface_hub, its token and its HF_ENDPOINT."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import unquote

from ...adapter import AdapterError
from .http import BUSY, Http, seconds
from .store import CHANGED, SECONDS, Busy, Entry, Unread, again, why


def hub_parts(address: str) -> tuple[str, str | None, str]:
    """`hf://org/name@revision/inner` → its repository, revision and folder (huggingface_hub hf_file_system.py:
    resolve_path: a revision with a slash has %2F in place of it, but for refs/pr/N). Raises AdapterError.
    """
    found = re.fullmatch(
        r"hf://(?P<id>[\w-][\w.-]*/[\w.-]+)(?:@(?P<revision>refs/(?:pr|convert)/[\w.-]+|[^/@]+))?(?:/(?P<inner>.*))?",
        address.rstrip("/"), re.ASCII,
    )  # fmt: skip
    if not found or found["id"].startswith(("datasets/", "spaces/")):
        raise AdapterError("an address on the Hub is hf://ORG/NAME, hf://ORG/NAME@REVISION or one of a folder below")
    return found["id"], unquote(found["revision"]) if found["revision"] else None, (found["inner"] or "").strip("/")


def offline() -> bool:
    """Whether huggingface_hub is told to ask for nothing (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


class Hub(Http):
    """A repository of the Hugging Face Hub at one commit, or a folder of one."""

    lists = True
    tagged = False
    otherwise = "; `hf upload` brings a folder to the Hub"
    access = "log in with `hf auth login` or set HF_TOKEN; a gated model wants its terms accepted on its page"

    def __init__(self, root: str, repository: str, revision: str | None, inner: str) -> None:
        super().__init__(root, "https://hub")
        self.repository = repository
        self.revision = revision
        self.inner = inner
        self.commit = ""
        self._sent: dict[str, str] = {}

    async def listing(self) -> dict[str, Entry]:
        """As of Store; which commit it is is settled here, and holds for all that is read."""
        about = await again(self._about, None)
        if not re.fullmatch(r"[0-9a-f]{40}", about.sha or ""):
            raise Unread("was given by the Hub without a commit")
        self.commit = str(about.sha)
        found = {}
        for each in about.siblings or ():
            name = each.rfilename
            if self.inner and not name.startswith(f"{self.inner}/"):
                continue
            lfs = each.lfs
            tag = (lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", "")) if lfs else each.blob_id
            if each.size is None:  # as of a mirror that does not say; what is left out would be taken as not there
                raise Unread(f"was given by the Hub without the size of {name}")
            found[name[len(self.inner) :].lstrip("/")] = Entry(int(each.size), str(tag or ""))
        return found

    async def _about(self) -> Any:
        """What the Hub says of the repository. Raises Unread."""
        from huggingface_hub import HfApi

        def ask() -> Any:
            return HfApi().model_info(self.repository, revision=self.revision, files_metadata=True, timeout=SECONDS)

        try:
            return await asyncio.get_running_loop().run_in_executor(None, ask)
        except Exception as error:  # of requests or of httpx, by the release of huggingface_hub
            said = f"was not given by the Hub: {_hub_says(error, self.access)}"
            answer: Any = getattr(error, "response", None)
            if getattr(answer, "status_code", None) in BUSY:
                raise Busy(said, seconds(answer.headers.get("Retry-After", ""))) from None
            raise Unread(said) from None

    def address(self, name: str, tag: str) -> str:
        """As of Http."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repository, f"{self.inner}/{name}".lstrip("/"), revision=self.commit)

    def headers(self, tag: str) -> dict[str, str]:
        """As of Http; the commit is in the address."""
        if not self._sent:
            from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

            self._sent = dict(build_hf_headers(library_name="ckpt-doctor"))
        return self._sent

    def tag(self, headers: Any) -> str:
        """As of Http. Raises Unread where the answer is of another commit."""
        if headers.get("X-Repo-Commit", self.commit) != self.commit:
            raise Unread(CHANGED)
        return ""


def _hub_says(error: Exception, access: str) -> str:
    """Why the Hub gave nothing."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"GatedRepoError", "RepositoryNotFoundError"}:
        return f"it does not exist, or gives no access: {access}"
    if "RevisionNotFoundError" in names:
        return "it has no such revision"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status:
        return f"it answered with {status}"
    if any("Timeout" in name for name in names):
        return "it did not answer in time"
    if any("Connect" in name for name in names):
        return "it cannot be reached (HF_ENDPOINT names another one)"
    return why(error)
