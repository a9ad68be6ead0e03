"""The Hugging Face hub: check a destination before anything is uploaded, upload a commit, download an exported run."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from shipbench.errors import InputError, ShipbenchError, one_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFIX = "hf:"
HUB = "https://huggingface.co"
WEIGHTS = "shipbench.safetensors"
"""The file of a model repository that ``shipbench predict hf:USER/REPO`` reads: what ``shipbench export`` writes."""

RepoType: TypeAlias = Literal["model", "dataset"]
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_LONGEST = 96
_WRITING = ("write", "admin", "contributor")
_KINDS: Mapping[RepoType, str] = {"model": "the model", "dataset": "the data set"}


@dataclass(frozen=True)
class Upload:
    """One commit: the files of a repository by path in it, as bytes or as the path of a file here.

    ``replaced`` are files of an earlier commit that these take the place of; they are deleted.
    """

    repo: str
    repo_type: RepoType
    message: str
    files: Mapping[str, bytes | Path]
    replaced: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The total size in bytes."""
        return sum(size_of(content) for content in self.files.values())

    @property
    def address(self) -> str:
        """The address of the repository's page."""
        return f"{_endpoint() or HUB}/{'datasets/' if self.repo_type == 'dataset' else ''}{self.repo}"


def size_of(content: bytes | Path) -> int:
    """Return the size of a file to upload in bytes."""
    return content.stat().st_size if isinstance(content, Path) else len(content)


def check_name(repo: str) -> None:
    """Raise ``InputError`` unless ``repo`` is USER/REPO as the hub allows."""
    well_formed = re.fullmatch(f"{_PART}/{_PART}", repo) and all(len(part) <= _LONGEST for part in repo.split("/"))
    if not well_formed or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise InputError(
            f"{repo!r} is not USER/REPO; both are letters, digits, '-', '_' and '.', begin and end with neither '-' "
            f"nor '.', contain neither '--' nor '..', and have at most {_LONGEST} characters each"
        )


def check_may_write(repo: str, repo_types: Sequence[RepoType]) -> None:
    """Ask the hub whether the token at hand may write to the repositories of ``repo_types`` called ``repo``.

    Raises ``InputError`` without a token, for a token that the hub does not accept, for one that may only read, and for
    a user or organisation that is not the token's; ``ShipbenchError`` if the hub cannot be reached.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise InputError(
            "there is no token for the hub; make one with write permission at huggingface.co/settings/tokens, then set "
            "HF_TOKEN or run 'hf auth login'"
        )
    with _explained(f"cannot ask the hub about the token for {repo}"):
        account = _api().whoami()
    _refuse_other_owner(repo, account)
    refused = [_KINDS[kind] for kind in repo_types if not _token_may_write(repo, kind, account)]
    if refused:
        raise InputError(
            f"the token of {account['name']} has no write permission for {' and '.join(refused)} {repo}; make one that "
            "has at huggingface.co/settings/tokens"
        )


def _refuse_other_owner(repo: str, account: Mapping[str, Any]) -> None:
    owner, name = repo.split("/")[0], account["name"]
    roles = {org["name"]: org.get("roleInOrg", "write") for org in account.get("orgs", ())}
    if owner == name or roles.get(owner) in _WRITING:
        return
    if owner in roles:
        raise InputError(f"{name} may only read in the organisation {owner}; push to {name}/{repo.split('/')[1]}")
    raise InputError(
        f"the token belongs to {name}, who is not a member of {owner}; push to {name}/{repo.split('/')[1]}"
    )


def _token_may_write(repo: str, repo_type: RepoType, account: Mapping[str, Any]) -> bool:
    """Return whether the token may write; a kind of token without a role is left to the hub to judge."""
    token = account.get("auth", {}).get("accessToken", {})
    if token.get("role") != "fineGrained":
        return token.get("role") != "read"
    scopes = token.get("fineGrained", {}).get("scoped", ())
    return any("repo.write" in scope["permissions"] and _covers(scope["entity"], repo, repo_type) for scope in scopes)


def _covers(entity: Mapping[str, Any], repo: str, repo_type: RepoType) -> bool:
    """Return whether an entity is the repository or its owner; one without a type is left to the hub to judge."""
    of_this_type = entity.get("type", repo_type) == repo_type
    places = (repo.split("/")[0], f"{repo_type}s/{repo}", *([repo] if of_this_type else []))
    return entity.get("name") in places


def upload(commit: Upload, *, private: bool = False) -> None:
    """Create the repository unless it exists; in one commit, add the files and delete those that they replace.

    ``private`` applies to a new repository. Raises ``InputError`` if the hub refuses to create it, ``ShipbenchError``
    if the upload fails.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    _hide_progress()
    with _explained(f"cannot create {commit.repo} on the hub"):
        _api().create_repo(commit.repo, repo_type=commit.repo_type, private=private, exist_ok=True)
    operations: list[Any] = [CommitOperationAdd(name, content) for name, content in commit.files.items()]
    with _explained(f"cannot upload {commit.repo} to the hub"):
        # The hub refuses to delete a file that is not there.
        kept = (name for name in commit.replaced if _api().file_exists(commit.repo, name, repo_type=commit.repo_type))
        operations += [CommitOperationDelete(name) for name in kept]
        _api().create_commit(commit.repo, operations, commit_message=commit.message, repo_type=commit.repo_type)


def download(address: str) -> Path:
    """Return the exported run of ``hf:USER/REPO``, or of one revision of it (``hf:USER/REPO@REVISION``), cached.

    Raises ``InputError`` for a repository that does not exist, is private or gated, lacks the revision or holds no run,
    and ``ShipbenchError`` if the hub cannot be reached.
    """
    from huggingface_hub import errors, hf_hub_download

    repo, _, revision = address.removeprefix(PREFIX).partition("@")
    check_name(repo)
    _hide_progress()
    try:
        with _explained(f"cannot download {address}"):
            return Path(hf_hub_download(repo, WEIGHTS, revision=revision or None, endpoint=_endpoint()))
    except ShipbenchError as error:
        cause = error.__cause__
        if isinstance(cause, errors.GatedRepoError):
            reason = f"has conditions to accept; do so at {_endpoint() or HUB}/{repo}, then set HF_TOKEN"
        elif isinstance(cause, errors.RepositoryNotFoundError):
            reason = "does not exist on the hub or is private; check the name, or set HF_TOKEN if it is yours"
        elif isinstance(cause, errors.RevisionNotFoundError):
            reason = f"is not a revision of {repo}; name a branch, a tag or a commit after the @"
        elif isinstance(cause, errors.EntryNotFoundError) and not isinstance(cause, errors.LocalEntryNotFoundError):
            reason = f"holds no {WEIGHTS}; name a repository that 'shipbench push' has written"
        else:
            raise
        raise InputError(f"{address} {reason}") from cause


def _hide_progress() -> None:
    """Let the client draw progress bars on a terminal only."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty():
        disable_progress_bars()


def _endpoint() -> str | None:
    return (os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=_endpoint())


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn the client's errors into one sentence; its major versions raise those of different HTTP libraries."""
    try:
        yield
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = one_line(error, 300).rstrip(".")
        if status == 401:
            raise InputError(f"{what}: the hub does not accept the token; make another, or check HF_TOKEN") from error
        if status == 403:
            raise InputError(f"{what}: the hub refuses it ({reason}); check what the token may do") from error
        raise ShipbenchError(f"{what}: {reason}; check the network and try again") from error
