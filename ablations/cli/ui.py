"""`trans4init ui`: serve MLflow's pages on the runs, and Optuna's dashboard if it is installed."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DASHBOARD", "Ui"]

DASHBOARD = "from importlib.metadata import entry_points as e; e(group='console_scripts')['optuna-dashboard'].load()()"
"""Runs Optuna's dashboard, which no module starts, with the Python that runs this: its script may be on no path."""


@dataclass(frozen=True)
class Ui:
    """Serve MLflow's pages on the runs (and optuna-dashboard, if installed) until Ctrl-C."""

    runs: Path = Path("runs")
    """The folder that holds all studies."""
    port: int = 5000
    """MLflow's port; Optuna's dashboards take the ones after it."""

    def run(self, command: str) -> int:
        """Start the servers, print their addresses, and wait."""
        from trans4init.ablations.errors import FaultError, InputError
        from trans4init.reports.files import sqlite_address
        from trans4init.reports.mirror.store import MirrorError, experiments, tracking_uri

        if not 0 < self.port < 2**16:
            raise InputError(f"--port must be from 1 to 65535, not {self.port}.")
        try:
            uri = tracking_uri(self.runs)
        except MirrorError as error:
            raise FaultError(f"{self.runs} can't be shown: {error}.") from error
        if uri.startswith("sqlite") and not (self.runs / "mlflow.db").exists():
            raise InputError(
                f"{self.runs} has no mlflow.db: run a study first, or name with --runs the folder that holds one; "
                f"a linked study is mirrored where the link leads."
            )
        if _answers(self.port):
            raise InputError(f"port {self.port} is taken; name another with --port.")
        try:
            studies = experiments(self.runs)
        except MirrorError as error:
            raise FaultError(f"MLflow's store {uri} can't be read: {error}") from error
        artifacts = (self.runs.resolve() / "mlartifacts").as_uri()
        # MLflow's first page shows traces of language models; these addresses show the lists of runs.
        pages = [f"http://127.0.0.1:{self.port}/#/experiments/{id_}/runs  {name}" for name, id_ in studies.items()]
        servers = {
            "\n".join(pages): [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--backend-store-uri", uri, "--default-artifact-root", artifacts),
                *("--workers", "1"),  # one person looks; MLflow's four take four times as long to start on a laptop
            ]
        }
        if importlib.util.find_spec("optuna_dashboard"):
            for number, path in enumerate(sorted(self.runs.glob("*/optuna.db")), start=1):
                port = self.port + number
                servers[f"http://127.0.0.1:{port}  Optuna, {path.parent.name}"] = [
                    *(sys.executable, "-c", DASHBOARD, sqlite_address(path)),
                    *("--host", "127.0.0.1", "--port", str(port)),
                ]
        return _serve(servers)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _serve(servers: dict[str, list[str]]) -> int:
    # Without its job queue, which nothing here uses, MLflow starts ten processes less and leaves none behind.
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for title, words in servers.items():
            processes.append(subprocess.Popen(words, env=environment))
            print(title)
        print("Ctrl-C ends them.")
        return max(process.wait() for process in processes)
    except KeyboardInterrupt:
        return 0
    finally:
        for process in processes:
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            for process in processes:
                process.wait(timeout=10)
