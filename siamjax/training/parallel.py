"""Where the step runs: `jit` on one device, `pmap` on several. The only file that knows devices.

On one device arrays are plain. On several every leaf has a leading axis of local devices, and
`put` and `get` add and remove it, so nothing else has to know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils

from siamjax import backend, cluster

AXIS = "data"
Device: TypeAlias = Any  # a jax.Device; jaxlib has no type stubs


@dataclass(frozen=True)
class Devices:
    """The devices of this process that a run uses.

    Attributes:
        local: this process's devices.
        mapped: whether the step is pmapped (several devices, or several processes).
    """

    local: tuple[Device, ...]
    mapped: bool

    @property
    def axis(self) -> str | None:
        """The name of the device axis, or None on one device."""
        return AXIS if self.mapped else None

    @property
    def count(self) -> int:
        """Devices over all processes."""
        return len(self.local) * jax.process_count()

    def compile(self, step: Callable, steps: int = 1) -> Callable:
        """`(state, data) -> (state, figures)`, `steps` steps in one dispatch, state donated.

        Figures come back with a leading axis of `steps`. State and data are on the devices
        already (`put`): a dispatch sends nothing there.
        """
        program = self.program(step, steps)

        def dispatch(state: Any, data: Any) -> tuple[Any, Any]:
            # What is not on the device by now would be sent at every step, and nobody would see.
            with jax.transfer_guard("disallow"):
                return program(state, data)

        # With several processes pmap itself moves the key, which the guard takes for a transfer.
        return dispatch if cluster.alone() else program

    def program(self, step: Callable, steps: int = 1) -> Any:
        """As `compile`, with what JAX's own functions have (`lower`), and without the guard."""
        many = scanned(step, steps)
        if self.mapped:
            return jax.pmap(many, axis_name=AXIS, donate_argnums=0, devices=self._devices())
        return backend.jit(many, donate_argnums=0)

    def _devices(self) -> list[Device]:
        """Those of all processes, as many of each; the order says whose share is which."""
        everyone = range(jax.process_count())
        return [d for process in everyone for d in jax.local_devices(process)[: len(self.local)]]

    @property
    def shares(self) -> range:
        """Which shares of a batch fall to this process, one for each of its devices."""
        mine = len(self.local)
        return range(mine * jax.process_index(), mine * (jax.process_index() + 1))

    def put_each(self, trees: Sequence[Any]) -> Any:
        """Host arrays, another tree of them onto each of this process's devices."""
        if not self.mapped:
            return jax.device_put(trees[0], self.local[0])
        return jax.device_put(
            jax.tree.map(lambda *leaves: np.stack(leaves), *trees), self._local_sharding()
        )

    def _local_sharding(self) -> jax.sharding.NamedSharding:
        mesh = jax.sharding.Mesh(np.array(self.local), (AXIS,))
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))

    def put(self, tree: Any) -> Any:
        """Host arrays onto the device, or a copy of them onto each device."""
        if not self.mapped:
            return jax.device_put(tree, self.local[0])
        return jax.tree.map(self._replicate, tree)

    def _replicate(self, leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            copies = self._replicate(np.asarray(jax.random.key_data(leaf)))
            return jax.random.wrap_key_data(copies, impl=jax.random.key_impl(leaf))
        # From a host copy: donating a replica made from a device array would delete the original.
        leaf = np.asarray(leaf)
        shape = (len(self.local), *leaf.shape)
        return jax.make_array_from_callback(shape, self._local_sharding(), lambda _: leaf[None])

    def get(self, tree: Any) -> Any:
        """One copy of a tree that is equal on every device."""
        if not self.mapped:
            return tree
        return jax.tree.map(lambda x: x.addressable_shards[0].data[0], tree)

    def any(self, wish: bool, now: bool) -> bool:
        """Whether a process wishes it; several ask each other, where `now`, and agree.

        Args:
            wish: of this process, say to stop: a signal may reach one process only.
            now: whether to ask; the same in every process at the same step.
        """
        if cluster.alone():
            return wish
        return now and not cluster.all_ready(not wish)

    def from_main(self, figures: dict[str, Any]) -> dict[str, Any]:
        """The numbers of the first process in every process, so that all decide alike."""
        if cluster.alone():
            return figures
        names = sorted(name for name, value in figures.items() if isinstance(value, float))
        own = np.array([figures[name] for name in names], np.float64).view(np.int32)  # exact
        agreed = np.asarray(multihost_utils.broadcast_one_to_all(own)).view(np.float64)
        return figures | dict(zip(names, agreed.tolist(), strict=True))


def choose_devices(count: int = 0) -> Devices:
    """The first `count` local devices, or all of them.

    Raises:
        ValueError: if there are fewer.
    """
    local = jax.local_devices()
    if count > len(local):
        raise ValueError(
            f"config.train.devices = {count}, but this process has {len(local)}"
            f" {local[0].platform} device(s)"
        )
    local = tuple(local[: count or None])
    return Devices(local, mapped=len(local) > 1 or jax.process_count() > 1)


def scanned(step: Callable, steps: int) -> Callable:
    """`steps` steps as one function, its figures stacked: `[steps]` each."""

    def many(state: Any, data: Any) -> tuple[Any, Any]:
        return lax.scan(lambda s, _: step(s, data), state, length=steps)

    def one(state: Any, data: Any) -> tuple[Any, Any]:
        # Not a scan of length 1: XLA's CPU backend runs convolutions inside a loop far slower.
        state, figures = step(state, data)
        return state, jax.tree.map(lambda x: x[None], figures)

    return one if steps == 1 else many
