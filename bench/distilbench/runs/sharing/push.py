"""A run's model and results, uploaded to the Hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from distilbench.core.errors import UserError
from distilbench.core.escape import one_line
from distilbench.records.record import read_run
from distilbench.runs.export import export_run

RESULTS = "distilbench"
"""Folder of the record and what belongs to it, beside the model."""
NOT_ALLOWED = (401, 403)


class NotPushedError(Exception):
    """One sentence: why the Hub did not take it, and what to do."""


def push_run(run: Path, repo: str, cache: Path, *, public: bool = False) -> str:
    """Upload the model of a run's folder with its card, and the record beside it; the address of the repository.

    A repository that is not there is made, private unless `public`. Raises `UserError` as `export_run` does, for a name
    that is none, and where the repository is public already and that was not asked for; `NotPushedError` where the Hub
    cannot be reached, or refuses.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"--repo {one_line(repo)}: {one_line(str(error))}") from None
    record = read_run(run)
    with TemporaryDirectory() as place:
        folder = export_run(run, Path(place) / "model", cache)
        shutil.copytree(run, folder / RESULTS)
        return _upload(folder, repo, f"{record.label} seed {record.seed} of {record.study}", public)


def _upload(folder: Path, repo: str, title: str, public: bool) -> str:
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise NotPushedError("there is no token for the Hub; run hf auth login, or set HF_TOKEN to one that may write")
    api = HfApi(library_name=RESULTS)
    try:
        url = str(api.create_repo(repo, repo_type="model", private=not public, exist_ok=True))
        private = api.repo_info(repo, repo_type="model").private
        if private or public:
            api.upload_folder(repo_id=repo, folder_path=folder, repo_type="model", commit_message=f"Upload {title}")
    # Whatever the library, the network and the Hub may raise: nothing of ours runs in there.
    except Exception as error:
        raise NotPushedError(_explained(repo, error)) from error
    if not private and not public:
        raise UserError(f"{repo} is a public repository; add --public to upload to it, or choose another")
    return url


def _explained(repo: str, error: Exception) -> str:
    from huggingface_hub.errors import OfflineModeIsEnabled

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in NOT_ALLOWED:
        return (
            f"the Hub does not let this token write to {repo} (HTTP {status}); give one that may with hf auth login, "
            "or in HF_TOKEN"
        )
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{repo} could not be uploaded ({lines[0]}); the same command tries again"
