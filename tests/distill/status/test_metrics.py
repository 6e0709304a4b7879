"""The status as metrics for Prometheus."""

from prometheus_client.parser import text_string_to_metric_families

from distill.status.metrics import STEPS, families, page
from tests.helpers.status_samples import every_state


def samples(status):
    kind, text = page(status, "")
    assert kind.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_each_tasks_metrics_equal_its_status():
    status = every_state()
    metrics = samples(status)
    for task in status.tasks:
        label = (("task", task.task),)
        assert metrics["understudy_task_traces", label] == task.traces
        assert metrics["understudy_task_new_traces", label] == task.new_traces
        assert metrics["understudy_task_paused", label] == (task.paused is not None)
        step = metrics["understudy_task_student_step", label]
        assert STEPS[int(step)] == (task.live.step if task.live else "none")
        share = metrics["understudy_task_student_share", label]
        assert share == (task.live.share if task.live else 0)
        bound = (task.certificate or {}).get("lower_bound")
        assert metrics.get(("understudy_task_lower_bound", label)) == bound
        assert metrics.get(("understudy_task_saved_usd", label)) == task.cost_usd.saved
        for name, detector in (task.live.suspicion if task.live else {}).items():
            labels = (("of", name), ("task", task.task))
            assert metrics["understudy_task_suspicion", labels] == detector.level
    assert metrics["understudy_store_ok", ()] == status.store.ok
    assert metrics["understudy_collected_traces_total", ()] == status.store.collected


def test_every_metric_has_our_prefix_and_a_description():
    for family in families(every_state()):
        assert family.name.startswith("understudy_") and family.documentation.endswith(".")


def test_openmetrics_is_served_when_accepted():
    kind, text = page(every_state(), "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text") and text.endswith(b"# EOF\n")
