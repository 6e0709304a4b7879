"""Preparations of `understudy serve`: the data folder, the socket, the plan of its children."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from cli.serve.banner import client_hint, show
from cli.serve.data_folder import LOCK_NAME, ServeNote, hold_data_dir, is_held, running_server
from cli.serve.listen import listen, listens, reserved_port, wait_for_answer
from cli.serve.plan import ServeContext, ServePlan, litellm_for, plan_children
from store.errors import ConfigError, ProductError
from store.settings.config import Config, ServerSettings, parse_config

DIRECT = {"model": "openai/rules", "api_base": "http://127.0.0.1:9/v1", "api_key": "sk-teacher"}
ELSEWHERE = {"model": "hosted_vllm/rules", "api_base": "http://127.0.0.1:9/v1"}


def config(folder: Path, params: dict[str, str], **more: Any) -> Config:
    entry = {"model_name": "teacher", "litellm_params": params}
    return parse_config({"model_list": [entry], "data_dir": str(folder / "data"), **more})


def planned(folder: Path, params: dict[str, str], **more: Any) -> ServePlan:
    settings = config(folder, params, **more)
    with listen(ServerSettings(port=0)) as listener, contextlib.ExitStack() as ports:
        context = ServeContext.create(folder / "config.yaml", listener, 5001)
        litellm = litellm_for(context, settings, ports)
        plan = plan_children(context, settings, folder / "accepted.yaml", litellm)
        plan.roster.close()
        return plan


def test_the_data_folder_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    with hold_data_dir(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_second_server_on_the_same_folder_is_told_who_has_it(tmp_path: Path) -> None:
    with hold_data_dir(tmp_path) as held:
        held.leave_note(ServeNote(4711, "http://127.0.0.1:1"))
        with pytest.raises(
            ProductError, match=r"PID 4711, http://127\.0\.0\.1:1.*another data_dir"
        ):
            hold_data_dir(tmp_path).__enter__()
    with hold_data_dir(tmp_path):  # free again
        pass


@pytest.mark.parametrize("content", ["", "{}", "torn {", "[1]"])
def test_a_lock_without_a_note_is_still_a_lock(tmp_path: Path, content: str) -> None:
    with hold_data_dir(tmp_path):
        (tmp_path / LOCK_NAME).write_text(content)
        assert running_server(tmp_path) is None
        with pytest.raises(ProductError, match="another understudy serves from"):
            hold_data_dir(tmp_path).__enter__()


def test_a_note_replaces_a_longer_one_as_a_whole(tmp_path: Path) -> None:
    with hold_data_dir(tmp_path) as held:
        for said in ("x" * 3000, "y"):
            held.leave_note(ServeNote(1, "u", said=said))
            found = running_server(tmp_path)
            assert found is not None
            assert found.said == said
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    assert not is_held(tmp_path / "nowhere")


@pytest.mark.parametrize("way", ["deleted", "edited", "a directory", "a pipe", "a copy"])
def test_a_lock_that_somebody_spoils_is_made_again(way: str, tmp_path: Path) -> None:
    file = tmp_path / LOCK_NAME
    note = ServeNote(4711, "http://127.0.0.1:1")
    with hold_data_dir(tmp_path) as held:
        held.leave_note(note)
        assert not held.restore()
        if way == "edited":
            file.write_bytes(b"{}")
        else:
            content = file.read_bytes()
            file.unlink()
            if way == "a directory":
                file.mkdir()
            elif way == "a pipe":
                os.mkfifo(file)
            elif way == "a copy":
                file.write_bytes(content)
                file.chmod(0o644)
        if way != "a copy":
            assert running_server(tmp_path) is None
        assert held.restore()
        assert not held.restore()
        assert running_server(tmp_path) == note
        assert is_held(tmp_path)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with pytest.raises(ProductError, match="PID 4711"):
            hold_data_dir(tmp_path).__enter__()
    assert not is_held(tmp_path)


def test_a_lock_that_another_server_has_by_now_is_left_to_it(tmp_path: Path) -> None:
    with hold_data_dir(tmp_path) as first:
        first.leave_note(ServeNote(1, "u"))
        (tmp_path / LOCK_NAME).unlink()
        with hold_data_dir(tmp_path) as second:
            second.leave_note(ServeNote(2, "u"))
            assert not first.restore()
            found = running_server(tmp_path)
            assert found is not None
            assert found.pid == 2


def test_a_folder_in_the_place_of_the_lock_makes_room(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).mkdir()
    with hold_data_dir(tmp_path):
        assert is_held(tmp_path)


def test_a_data_folder_that_cannot_be_made_is_a_fault_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"data_dir .*file/data cannot be used"):
        hold_data_dir(tmp_path / "file" / "data").__enter__()


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with listen(ServerSettings(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ProductError, match=rf"127\.0\.0\.1:{port}: the port is in use.*server\.port"
        ):
            listen(ServerSettings(port=port))


def test_a_host_of_another_machine_is_named() -> None:
    keys = [{"key": "k", "name": "n"}]
    for host in ("192.0.2.1", "no-such-host.invalid"):
        server = ServerSettings.model_validate({"host": host, "port": 0, "keys": keys})
        with pytest.raises(ProductError, match=rf"{host}.*correct server\.host"):
            listen(server)


def test_the_socket_queues_connections_and_is_inherited(tmp_path: Path) -> None:
    with listen(ServerSettings(port=0)) as listener:
        address = listener.getsockname()
        assert listener.get_inheritable()
        with socket.create_connection(address, 5):  # nobody accepts yet
            accepted, _ = listener.accept()
            accepted.close()


def test_waiting_ends_with_the_first_answer_of_any_kind() -> None:
    with listen(ServerSettings(port=0)) as listener:
        assert not wait_for_answer(listener, 0.05)
        accepted, _ = listener.accept()
        accepted.close()

        answering = listen(ServerSettings(port=0))
        pid = os.fork()
        if pid == 0:
            connection, _ = answering.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            os._exit(0)
        assert wait_for_answer(answering, 30)
        os.waitpid(pid, 0)
        answering.close()


def test_a_reserved_port_can_be_bound_by_a_child() -> None:
    with reserved_port() as port, socket.socket() as child:
        assert not listens(port)
        child.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        child.bind(("127.0.0.1", port))
        child.listen()
        assert listens(port)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux holds the port, others only choose it")
def test_a_reserved_port_refuses_connections_until_it_is_bound() -> None:
    with reserved_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_the_plan_stops_the_proxy_first_and_shows_secrets_to_nobody(tmp_path: Path) -> None:
    plan = planned(tmp_path, DIRECT)

    assert [spec.name for spec in plan.specs] == ["proxy", "control plane"]
    proxy, control = plan.specs
    assert list(proxy.argv)[-3:] == ["proxy.worker", "--fd", str(proxy.pass_fds[0])]
    assert proxy.stage < control.stage
    assert list(control.argv)[-1] == "distill.control"
    [page] = control.pass_fds
    assert page in proxy.pass_fds
    runtime = json.loads(proxy.env["UNDERSTUDY_RUNTIME"])
    assert runtime["config_path"] == str(tmp_path / "accepted.yaml")
    assert runtime["control_port"] == 5001
    assert runtime["litellm_url"] is None
    told = json.loads(control.env["UNDERSTUDY_RUNTIME"])
    assert told["control_token"] == runtime["control_token"]
    for secret in (runtime["control_token"], "sk-teacher"):
        assert secret not in repr(plan.specs)
        assert not any(secret in argument for spec in plan.specs for argument in spec.argv)


def test_the_grace_periods_add_up_to_less_than_a_service_managers(tmp_path: Path) -> None:
    plan = planned(tmp_path, ELSEWHERE)

    stages = {spec.stage for spec in plan.specs}
    assert len(stages) == 3
    assert sum(max(s.grace_s for s in plan.specs if s.stage == n) for n in stages) < 30


def test_each_worker_has_a_name_and_a_row_of_its_own(tmp_path: Path) -> None:
    plan = planned(tmp_path, DIRECT, server={"workers": 3, "drain_s": 40})

    assert [spec.name for spec in plan.proxies] == ["proxy 0", "proxy 1", "proxy 2"]
    told = [json.loads(spec.env["UNDERSTUDY_RUNTIME"]) for spec in plan.proxies]
    assert [t["worker"] for t in told] == [0, 1, 2]
    assert {(t["workers"], t["roster_fd"]) for t in told} == {(3, plan.roster.fd)}
    assert len({tuple(spec.argv) for spec in plan.proxies}) == 1
    for spec in plan.proxies:
        assert spec.pass_fds[1] == plan.roster.fd
        assert spec.grace_s > 40


def test_each_run_has_a_new_token(tmp_path: Path) -> None:
    tokens = {
        json.loads(planned(tmp_path, DIRECT).specs[0].env["UNDERSTUDY_RUNTIME"])["control_token"]
        for _ in range(3)
    }

    assert len(tokens) == 3


def test_a_teacher_of_another_provider_brings_litellm(tmp_path: Path) -> None:
    plan = planned(tmp_path, ELSEWHERE)

    assert [spec.name for spec in plan.specs] == ["proxy", "control plane", "LiteLLM"]
    runtime = json.loads(plan.specs[0].env["UNDERSTUDY_RUNTIME"])
    assert plan.litellm is not None
    assert runtime["litellm_url"] == f"http://127.0.0.1:{plan.litellm.port}/v1"
    assert runtime["litellm_key"].startswith("sk-")


def screen(plan: ServePlan) -> str:
    shown = io.StringIO()
    show(plan, Console(width=100, file=shown))
    return shown.getvalue()


def test_the_start_screen_shows_address_teacher_and_a_client(tmp_path: Path) -> None:
    plan = planned(
        tmp_path, ELSEWHERE, tasks={"triage": {}}, general_settings={"database_url": "x"}
    )

    shown = screen(plan)

    for needed in (plan.url, "teacher (through LiteLLM)", "triage", "understudy status --config"):
        assert needed in shown
    assert "LiteLLM runs without general_settings.database_url" in shown
    hint = client_hint(plan)
    assert hint in shown
    assert len(hint.splitlines()) == 5
    compile("\n".join(line.strip() for line in hint.splitlines()), "hint", "exec")


def test_the_start_screen_names_each_renamed_setting_once(tmp_path: Path) -> None:
    shown = screen(planned(tmp_path, DIRECT, retention={"retrain_marked": True}))

    assert shown.count("retention.retrain_marked is now called") == 1
    assert shown.count("retention.retrain_forgotten") == 1


def test_the_start_screen_shows_no_secret(tmp_path: Path) -> None:
    keys = [{"key": "client-key", "name": "support"}]
    shown = screen(planned(tmp_path, DIRECT, server={"keys": keys}))

    assert "support" in shown
    assert "client-key" not in shown
    assert "sk-teacher" not in shown


def write_config(folder: Path, **more: Any) -> Path:
    entry = {"model_name": "teacher", "litellm_params": DIRECT}
    file = folder / "config.yaml"
    file.write_text(
        yaml.safe_dump({"model_list": [entry], "data_dir": str(folder / "data"), **more})
    )
    return file
