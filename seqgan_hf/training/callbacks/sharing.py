"""The card of a run that has ended, and its way to the Hub."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from ...objectives import Models
from ...runs.card import write_card
from ...runs.folder import writable
from ...runs.hub import check_base, open_repositories, push_run
from ..processes import agreed
from ..session import Session


class ModelCard(TrainerCallback):
    """Draws the learning curve and writes the card beside the generator."""

    def __init__(self, session: Session):
        self.session = session

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with agreed(self.session.accelerator), writable(self.session.folder.path):
            if self.session.is_main:
                write_card(self.session.folder)


class PushToHub(TrainerCallback):
    """Uploads the finished run; the arguments `hub_*` say where and how."""

    def __init__(self, session: Session, models: Models):
        self.session, self.models = session, models

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A missing token, or an adapter that nobody else could load, is reported before training, not hours later."""
        with agreed(self.session.accelerator):
            if self.session.is_main:
                for adapter in getattr(self.models.generator, "peft_config", {}).values():
                    check_base(adapter.base_model_name_or_path)
                place: Any = "none" if self.models.discriminator is None else args.hub_discriminator
                open_repositories(self.session.hub_model_id, place, args.hub_private_repo, args.hub_token)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.push("End of training")

    def push(self, commit_message: str) -> str | None:
        """Upload from the main process; returns the address there, `None` elsewhere; raises as `push_run`."""
        session, args = self.session, self.session.args
        if not session.is_main:
            return None
        place = (session.hub_model_id, args.hub_private_repo, args.hub_token, args.hub_discriminator)
        return push_run(session.folder, *place, commit_message=commit_message)
