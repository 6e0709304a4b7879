"""Makes clients for teachers, by the names under which users' clients know them."""

from __future__ import annotations

from collections.abc import Callable

from distill.run.run import Run
from distill.teacher.client import TeacherClient
from store.errors import TeacherError
from store.records import TeacherCall
from store.settings.teachers import TeacherPool


class Teachers:
    """Makes clients. Each method raises TeacherError when no entry of model_list answers."""

    def __init__(self, pool: TeacherPool) -> None:
        self._pool = pool

    def for_run(self, model: str, run: Run, record: Callable[[TeacherCall], None]) -> TeacherClient:
        """A client for a run, limited by the run's token budget."""
        budget = run.settings.amplify.token_budget
        return self._client(model, run.run_id, run.task, record, budget)

    def for_audits(
        self, model: str, student_id: str, task: str, record: Callable[[TeacherCall], None]
    ) -> TeacherClient:
        """A client for the audits of a student, without a budget."""
        return self._client(model, student_id, task, record, None)

    def _client(
        self,
        model: str,
        run_id: str,
        task: str,
        record: Callable[[TeacherCall], None],
        token_budget: int | None,
    ) -> TeacherClient:
        deployment = self._pool.choose(model) or self._pool.choose(self._pool.default)
        if deployment is None:
            raise TeacherError(f"no entry of model_list answers for {model}")
        return TeacherClient(
            base_url=deployment.base_url,
            api_key=deployment.api_key,
            model=deployment.upstream_model,
            record=record,
            run_id=run_id,
            task=task,
            token_budget=token_budget,
        )
