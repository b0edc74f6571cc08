"""`zerohop exec`: become a program inside a workload."""

from __future__ import annotations

import difflib
import os
import signal

import click

from zerohop.cli.main import Context, require_root
from zerohop.errors import ZerohopError


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="""\b
Examples:
  sudo zerohop exec --workload shop/cart -- ./cart-server --port 50051
  sudo ip netns exec blue zerohop exec --workload shop/web -- ./web""",
)
@click.option("--workload", required=True, metavar="NS/NAME", help="The workload to run in, as configured.")
@click.option(
    "--allow-splice",
    is_flag=True,
    help="Do not answer splice(2) with EINVAL. Only for programs that never splice from a socket: such a splice hangs.",
)
@click.argument("argv", nargs=-1, required=True, metavar="-- CMD...")
@click.pass_obj
def command(context: Context, workload: str, allow_splice: bool, argv: tuple[str, ...]) -> None:
    """Run CMD inside a workload.

    This process becomes CMD (execve), so signals, exit status and network namespace are CMD's own.
    """
    require_root("exec")
    from zerohop.kernel import cgroup, seccomp
    from zerohop.kernel.datapath import DataPath
    from zerohop.kernel.tables import workload_ids

    namespace, separator, name = workload.partition("/")
    if not separator or not namespace or not name or "/" in name:
        raise click.BadParameter(f"{workload!r} is not NS/NAME, as in shop/cart", param_hint="--workload")
    with DataPath.open(context.instance) as path:
        known = workload_ids(path, removed=False)
    if workload not in known:
        nearest = difflib.get_close_matches(workload, known, n=1)
        raise ZerohopError(
            f"instance {context.instance!r} has no workload {workload!r}",
            hint=f"did you mean {nearest[0]!r}?" if nearest else "add a Workload to the configuration of zerohop run",
        )
    cgroup.enter(cgroup.exec_path(context.instance, namespace, name))
    seccomp.refuse_unserved(splice=not allow_splice)
    # Python ignores these; CMD must find them as a shell would have left them.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        raise ZerohopError(f"cannot run {argv[0]}: {error.strerror}", exit_code=127) from error
