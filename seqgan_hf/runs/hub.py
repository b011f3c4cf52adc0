"""Share a run: its generator, discriminator, card and records, in one commit to the Hugging Face Hub."""

from __future__ import annotations

import copy
import json
import logging
import re
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id
from tokenizers import processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..data.network import never_connected
from ..errors import HubError
from .card import PICTURE, discriminator_card, model_card, public_metrics, samples_file
from .folder import RunFolder


logger = logging.getLogger(__name__)

DiscriminatorPlace = Literal["subfolder", "repository", "none"]
# Files that run code when they are read: they are never uploaded.
UPLOADED = {".safetensors", ".json", ".py", ".txt", ".md", ".png", ".model", ".jinja", ".yaml", ".jsonl"}
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds between the attempts at a request
PASSING = (408, 429, 500, 502, 503, 504)  # answers of a server that may be well again in a moment
# What passes, too; a RuntimeError is how the client reports that the store of large files failed.
BROKEN = (HTTPError, ConnectionError, TimeoutError, RuntimeError)
Answer = TypeVar("Answer")


def classifier_tokenizer(
    tokenizer: PreTrainedTokenizerBase, eos_token_id: int | None
) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a discriminator: no start token, and the end token behind the text, where there is one.

    So a text has the tokens that the discriminator saw in training (see `generation.verdicts.judged_tokens`). The
    `tokenizer` of the generator is left as it is; of one that is written in Python, whose special tokens cannot be
    changed from outside, there is none (`None`). `eos_token_id` is `None` for sequences of fixed length.
    """
    if not tokenizer.is_fast:
        return None
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    ends = [] if eos_token_id is None else [tokenizer.convert_ids_to_tokens(eos_token_id)]
    backend.post_processor = processors.TemplateProcessing(
        single=["$A:0", *(f"{end}:0" for end in ends)],
        pair=["$A:0", "$B:0", *(f"{end}:0" for end in ends)],
        special_tokens=[{"id": end, "ids": [eos_token_id], "tokens": [end]} for end in ends],
    )
    names = {role: getattr(tokenizer, role) for role in ("bos_token", "eos_token", "pad_token", "unk_token")}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        split_special_tokens=tokenizer.split_special_tokens,
        model_input_names=["input_ids", "attention_mask"],
        **{role: token for role, token in names.items() if token is not None},
    )


def open_repositories(
    repo_id: str, discriminator: DiscriminatorPlace = "none", private: bool | None = None, token: str | None = None
) -> list[str]:
    """Make the repositories of a run, where they are not there; returns their full names, `owner/name`.

    That is the generator's, and a second one if `discriminator` is "repository"; `private`, `token`: see `push_run`.

    Raises:
        HubError: a name is not one of a repository, nobody is logged in, the token may not write there, or the Hub
            cannot be reached. Names and token are checked before anything is made.
    """
    names = [repo_id, f"{repo_id}-discriminator"] if discriminator == "repository" else [repo_id]
    for name in names:
        _check_name(name)
    return [open_repository(name, private, token) for name in names]


def open_repository(repo_id: str, private: bool | None = None, token: str | None = None, **kind: str) -> str:
    """Make one repository likewise; `kind` holds arguments of `HfApi.create_repo` for one that is of no model."""
    _check_name(repo_id)
    if (token or get_token()) is None:
        expected = "one with write access (https://huggingface.co/settings/tokens)"
        fix = "log in with `hf auth login`, or set the environment variable HF_TOKEN"
        raise HubError(f"no token for the Hub, to write {repo_id!r} there", expected, fix)
    api = HfApi(token=token)
    name = _retrying(repo_id, api.create_repo, first=True, private=private, exist_ok=True, **kind).repo_id
    if private and not _retrying(name, api.repo_info, repo_type=kind.get("repo_type")).private:
        fix = "make it private in its settings on the Hub, choose a new name, or leave the option out"
        raise HubError(f"{name!r} exists already and is public, but private=true", fix=fix)
    return name


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id or "/")  # which takes an empty name
    except HFValidationError as error:
        expected = "`owner/name` or `name`, of at most 96 letters, digits, '-', '_' and '.'"
        raise HubError(f"the repository name {repo_id!r}", expected) from error


def check_license(license: str | None) -> None:
    """Raise a `HubError` for what is no identifier of a licence on the Hub."""
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", license):
        expected = "an identifier such as apache-2.0, mit or cc-by-4.0"
        raise HubError(f"license={license!r}", expected, "see https://huggingface.co/docs/hub/repositories-licenses")


def push_run(
    folder: RunFolder,
    repo_id: str,
    private: bool | None = None,
    token: str | None = None,
    discriminator: DiscriminatorPlace = "subfolder",
    license: str | None = None,
    commit_message: str = "Upload a run of seqgan_hf",
) -> str:
    """Upload a finished run in one commit, so that an interrupted push leaves the repository as it was.

    The generator lies at the root, with the card, `recipe.yaml`, `metrics.jsonl`, `samples.txt` and the learning
    curve. Pushing again replaces these files and removes those of an earlier push that are none of this one, such as
    a discriminator that has moved; others in the repository are left alone.

    Args:
        folder: of the run.
        repo_id: `owner/name`, or `name` for the owner of the token.
        private: make the repository private; one that is there already has to be. By default a new one is what the
            account has chosen.
        token: by default the one of `hf auth login` or HF_TOKEN.
        discriminator: in the folder `discriminator` of the repository, in a repository of its own (named after the
            generator's, with `-discriminator`), or not uploaded.
        license: see `runs.card.model_card`.
        commit_message: of the commit.

    Returns:
        The address of the generator's repository.

    Raises:
        HubError: see `open_repositories` and `check_base`; or a file of the run must not be uploaded.
        RunFolderError: the run did not end.
    """
    if discriminator not in get_args(DiscriminatorPlace):
        raise HubError(f"discriminator={discriminator!r}", f"one of {', '.join(get_args(DiscriminatorPlace))}")
    check_license(license)
    place = discriminator if folder.read_summary()["discriminator"] else "none"
    files = generator_files(folder, with_discriminator=place == "subfolder")
    judge_files = files_of(folder.own(folder.discriminator)) if place == "repository" else {}
    repo_id, *judge_ids = open_repositories(repo_id, place, private, token)
    for judge_id in judge_ids:
        card = discriminator_card(folder, judge_id, repo_id, license)
        commit(judge_id, judge_files | {"README.md": str(card).encode()}, token, commit_message, _ours)
    card = model_card(folder, repo_id, {"subfolder": None, "none": ""}.get(place, *judge_ids), license)
    return commit(repo_id, files | {"README.md": str(card).encode()}, token, commit_message, _ours)


def generator_files(folder: RunFolder, with_discriminator: bool) -> dict[str, Path | bytes]:
    """What a repository holds, by path in it, without the card; raises as `files_of` and `check_base`."""
    files: dict[str, Path | bytes] = {**files_of(folder.own(folder.generator))}
    if isinstance(adapter := files.get("adapter_config.json"), Path):
        check_base(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"], f" into {adapter}")
    summary = folder.read_summary()
    if summary["recipe"]:
        files["recipe.yaml"] = summary["recipe"].encode()
    files["metrics.jsonl"] = public_metrics(folder.own(folder.metrics))
    if samples := samples_file(folder, summary):
        files["samples.txt"] = samples
    if with_discriminator:
        for name, path in files_of(folder.own(folder.discriminator)).items():
            files[f"discriminator/{name}"] = path
            if path.suffix == ".py":  # transformers looks for it at the root, though the model is in a subfolder
                files[name] = path
    return files


def check_base(base: str | None, place: str = "") -> None:
    """Raise a `HubError` for an adapter whose base is a folder of this machine, which nobody else has."""
    if base and (Path(base).is_absolute() or base.startswith(".") or Path(base).exists()):
        problem = f"an adapter to the model in the folder {base!r}"
        fix = f"push that model first, and name it by its id in `generator.pretrained`, or write that id{place}"
        raise HubError(problem, "one to a model with an id on the Hub, which others can load", fix)


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a folder, by path in it; a HubError for pickles, and for links, which could lead out of it."""
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if path.is_symlink():
            raise HubError(f"refusing to upload the link {str(path)!r}", "plain files", "remove it")
        if path.is_file() and path.suffix not in UPLOADED:
            kinds = f"only {', '.join(sorted(UPLOADED))} (pickles run code when they are loaded)"
            raise HubError(f"refusing to upload {str(path)!r}", kinds, "remove it")
    return {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}


def commit(
    repo_id: str,
    files: dict[str, Path | bytes],
    token: str | None,
    message: str,
    ours: Callable[[Collection[str]], list[str]],
    repo_type: str | None = None,
) -> str:
    """Upload files, and delete those of `ours` among the paths held that this push does not write; the address."""
    api = HfApi(token=token)

    def attempt(repo_id: str) -> str:
        old = set(ours(api.list_repo_files(repo_id, repo_type=repo_type))) - files.keys()
        operations: list[Any] = [CommitOperationAdd(name, content) for name, content in files.items()]
        operations += [CommitOperationDelete(name) for name in sorted(old)]
        return str(api.create_commit(repo_id, operations, commit_message=message, repo_type=repo_type).repo_url)

    return _retrying(repo_id, attempt)


def _ours(held: Collection[str]) -> list[str]:
    """Those of the paths that a model's repository holds which a push writes, where the run has that file."""
    code = {name for name in held if re.fullmatch(r"discriminator/modeling_\w+\.py", name)}
    ours = {"recipe.yaml", "samples.txt", PICTURE, *code, *(name.removeprefix("discriminator/") for name in code)}
    written = re.compile(
        r"(discriminator/)?model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|adapter_(model\.safetensors|config\.json)"
        r"|discriminator/(config|generation_config|tokenizer|tokenizer_config|special_tokens_map)\.json"
    )
    return [name for name in held if name in ours or written.fullmatch(name)]


def _retrying(repo_id: str, request: Callable[..., Answer], first: bool = False, **options: Any) -> Answer:
    """The answer to a request that concerns a repository, tried again while the server or the connection fails.

    A HubError if the Hub refuses, has failed too often, or cannot be reached. `first`: nothing has been so far, and
    without a network the second attempt is the last.
    """
    for attempt, wait in enumerate((*WAITS, None)):
        try:
            return request(repo_id, **options)
        except BROKEN as error:
            status, why = _status(error), (str(error).strip() or type(error).__name__).splitlines()[0]
            if isinstance(error, OfflineModeIsEnabled) or (first and attempt and never_connected(error)):
                fix = "connect to the network, or unset HF_HUB_OFFLINE where it is set, and push again"
                raise HubError(f"the Hub cannot be reached ({why.rstrip('.')})", None, fix) from error
            if wait is None or status not in (None, *PASSING):
                raise _failed(status, why, repo_id) from error
            logger.warning("The Hub failed (%s); trying again in %g s", why, wait)
            time.sleep(wait)
    raise AssertionError("unreachable")


def _status(error: BaseException | None) -> int | None:
    """The status of the answer that an error comes from, however often it was wrapped; `None` if there was none."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return None if error is None or error.response is None else error.response.status_code


def _failed(status: int | None, why: str, repo_id: str) -> HubError:
    if status is None or status in PASSING:
        fix = "check the connection and push again: nothing is lost, and nothing was uploaded in part"
        return HubError(f"the Hub failed {len(WAITS) + 1} times for {repo_id!r} ({why})", fix=fix)
    refused = f"the Hub refused {repo_id!r} with status {status}"
    if status in (401, 403, 404):
        login = "log in with `hf auth login` and a token with write access, or choose a repository of your own"
        return HubError(refused, "a token that may write there", login)
    return HubError(f"{refused} ({why})")
