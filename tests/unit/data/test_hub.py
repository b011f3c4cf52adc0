"""Hub datasets without a network: against a small local server, and with no server at all."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


COMMIT = "a" * 40
CARD = """---
configs:
- config_name: small
  default: true
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
---
"""
# Reads with each environment in a fork of one process that has imported what takes long and asks for no settings.
CLIENT = """
import json, os, sys
import matplotlib.figure, scipy.optimize, torch._dynamo, torch.distributed.tensor
for environment, requests in json.loads(sys.argv[1]):
    if os.fork():
        assert not os.wait()[1]
        continue
    os.environ |= environment
    from seqgan_hf.data import TextData
    from seqgan_hf.errors import DataError

    answers = []
    for arguments in requests:
        try:
            corpus = TextData(**arguments).load()
            decode = lambda rows: [corpus.tokenizer.decode(row["input_ids"], skip_special_tokens=True) for row in rows]
            answers.append([decode(corpus.train), decode(corpus.eval)])
        except DataError as error:
            answers.append(str(error))
    print("ANSWERS" + json.dumps(answers), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A dataset repository laid out as on the Hub."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "data").mkdir()
    captions = {"train": ["a man", "a dog runs", "two cats"], "test": ["a cat", "two men"]}
    for split, texts in captions.items():
        pq.write_table(pa.table({"caption": texts}), folder / f"data/{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text(CARD)
    return folder


def hub_handler(root: Path):
    """The part of the Hub's interface that `load_dataset` uses, for the one dataset org/captions."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def entry(self, path: Path) -> dict:
            name = str(path.relative_to(root))
            if path.is_dir():
                return {"type": "directory", "path": name, "oid": "d" * 40}
            return {"type": "file", "path": name, "oid": "f" * 40, "size": path.stat().st_size}

        def do_GET(self) -> None:
            interface, files = "/api/datasets/org/captions", "/datasets/org/captions/resolve/"
            path = self.path.split("?")[0]
            if path.startswith(files):
                file = root / path[len(files) :].split("/", 1)[1]
                if not file.is_file():
                    return self.answer(404, X_Error_Code="EntryNotFound")
                body = file.read_bytes()
                return self.answer(200, body, ETag=f'"{hashlib.sha1(body).hexdigest()}"', X_Repo_Commit=COMMIT)
            if path.startswith(f"{interface}/tree/"):
                folder = root / path[len(interface) + 6 :].partition("/")[2]
                return self.answer(200, json.dumps([self.entry(e) for e in sorted(folder.iterdir())]).encode())
            if path.startswith(interface):
                siblings = [{"rfilename": str(f.relative_to(root))} for f in root.rglob("*") if f.is_file()]
                return self.answer(
                    200, json.dumps({"id": "org/captions", "sha": COMMIT, "tags": [], "siblings": siblings}).encode()
                )
            self.answer(404, X_Error_Code="RepoNotFound")

        do_HEAD = do_GET

        def log_message(self, *_) -> None:
            pass

    return Handler


NAMED = {"dataset": "org/captions", "dataset_config": "small", "text_column": "caption"}
ONLINE = [
    {**NAMED, "eval_split": "test"},
    NAMED,
    {**NAMED, "eval_split": "test", "streaming": True, "max_length": 3},
    {**NAMED, "train_split": "validation"},
    {**NAMED, "dataset_config": "large"},
    {**NAMED, "text_column": "text"},
    {"dataset": "org/other"},
]


@pytest.fixture(scope="module")
def answers(repository, tmp_path_factory) -> list[list]:
    """What `TextData` gives for each set of arguments, with this Hub alone and without any."""
    folder = tmp_path_factory.mktemp("client")
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub_handler(repository))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(folder / "online")}
    nobody = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "offline")}
    offline = [{"dataset": "org/captions"}, {"dataset": str(repository), "eval_split": "test"}]
    try:
        run = subprocess.run(
            [sys.executable, "-c", CLIENT, json.dumps([(address, ONLINE), (nobody, offline)])],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            capture_output=True,
            text=True,
            cwd=folder,
        )
    finally:
        server.shutdown()
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads(line[len("ANSWERS") :]) for line in run.stdout.splitlines() if line.startswith("ANSWERS")]


def test_hub_dataset_by_id(answers):
    both, cut, streamed, split, config, column, missing = answers[0]
    assert both == [[" a man", " a dog runs", " two cats"], [" a <unk>", " two <unk>"]]
    assert len(cut[0]) == 2 and len(cut[1]) == 1
    assert streamed == [[" a man", " a dog runs", " two cats"], [" a <unk>", " two <unk>"]]
    assert "'validation'" in split and "['train', 'test']" in split
    assert "'large'" in config and "['small']" in config
    assert "'text'" in column and "['caption']" in column
    assert "'org/other'" in missing and "neither a folder here nor a dataset" in missing


def test_without_a_network(answers):
    """The error names the dataset, the reason and the way out; and the way out works."""
    error, copy = answers[1]
    assert "'org/captions'" in error
    assert "the Hub could not be reached" in error
    assert "hf download org/captions --repo-type dataset --local-dir FOLDER" in error
    assert "dataset=FOLDER" in error
    assert copy == [[" a man", " a dog runs", " two cats"], [" a <unk>", " two <unk>"]]
