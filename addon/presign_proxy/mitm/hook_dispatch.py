"""mitmproxy's dispatch of hooks, made cheaper: the same addons, in the same order, called the same way.

The stock manager builds a context manager, a coroutine and two generators for each of some forty addons at
each event, though few of them listen. That is a third of what a request costs, and more than we add to it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from mitmproxy import exceptions, hooks
from mitmproxy.addonmanager import AddonManager, safecall

logger = logging.getLogger(__name__)

Begin = Callable[[Any], bool]
"""Runs a hook as far as no addon waits, and returns whether that was all."""


class Hearer(NamedTuple):
    """An addon that handles a hook, and whether that is one function to call."""

    addon: Any
    is_plain: bool | None


class DirectAddonManager(AddonManager):
    """An addon manager that passes over the addons that do not handle a hook.

    Which these are is looked up again whenever the addons have changed. A script is never passed over, and
    is called by the stock code, like every addon that has others below it.
    """

    _seen: list[Any] | None = None
    _hearing: dict[str, tuple[Hearer, ...]]

    async def trigger_event(self, event: hooks.Hook) -> None:
        name, told = event.name, None
        for addon, is_plain in self._hearers(name):
            try:
                if is_plain:
                    told = event.args() if told is None else told
                    listen = getattr(addon, name, None)
                    waits = listen(*told) if listen else None
                    if waits is not None and inspect.isawaitable(waits):
                        await waits
                else:
                    with safecall():
                        await self.invoke_addon(addon, event)
            except exceptions.AddonHalt:
                return
            except Exception:
                with safecall():  # reports it
                    raise

    def _hearers(self, name: str) -> tuple[Hearer, ...]:
        """Return the addons that a hook is triggered on, in order."""
        self._look_again()
        found = self._hearing.get(name)
        if found is None:
            hearers = [Hearer(addon, _is_plain(addon, name)) for addon in self.chain]
            found = tuple([one for one in hearers if one.is_plain is not None])
            self._hearing[name] = found
        return found

    def _look_again(self) -> None:
        """Forget what was found, if the addons have changed since."""
        if self._seen != self.chain:
            self._seen = list(self.chain)
            self._hearing = {}
            self._forget()

    def _forget(self) -> None:
        pass


class PromptAddonManager(DirectAddonManager):
    """An addon manager that runs hooks at once, for a program that knows all of its addons.

    A task, a lock and two walks through all layers for each hook cost as much as all that the hooks do.
    """

    _found: dict[str, tuple[Callable[..., Any], ...]]
    _updates: tuple[Callable[..., Any], ...] = ()

    def begin(self, hook: Any) -> bool:
        """Call the addons for a hook about a flow, until one waits. Return whether that was all.

        If not, the hook has to be triggered as usual, and goes on from there. Raises what mitmproxy does not
        catch either.
        """
        listening = iter(self._listening(hook))
        if self._updates:
            return False
        for listen in listening:
            try:
                waits = listen(hook.flow)
            except exceptions.AddonHalt:
                return True
            except Exception:
                with safecall():  # reports it
                    raise
            else:
                if waits is not None and inspect.isawaitable(waits):
                    hook.rest = self._finish(waits, listening, hook.flow)
                    return False
        return True

    async def trigger_event(self, event: hooks.Hook) -> None:
        rest = vars(event).pop("rest", None)
        if rest is None:
            await super().trigger_event(event)
            return
        try:
            await rest
        except Exception as error:  # the hook is over: what it has not decided on is refused
            logger.error("presign: failed at a hook (%s)", type(error).__name__)

    async def _finish(self, waits: Awaitable[Any], others: Iterator[Callable[..., Any]], flow: Any) -> None:
        try:
            with safecall():
                await waits
            for listen in others:
                with safecall():
                    result = listen(flow)
                    if result is not None and inspect.isawaitable(result):
                        await result
        except exceptions.AddonHalt:
            return

    def _listening(self, hook: hooks.Hook) -> tuple[Callable[..., Any], ...]:
        """Return the handlers of a hook, in order."""
        self._look_again()
        found = self._found.get(hook.name)
        if found is None:
            found = tuple([func for addon in self.chain for _, func in self._iter_hooks(addon, hook)])
            self._found[hook.name] = found
        return found

    def _forget(self) -> None:
        self._found = {}
        self._updates = self._listening(hooks.UpdateHook([]))


def _is_plain(addon: Any, name: str) -> bool | None:
    """Return whether a hook of an addon is one function to call; None if there is nothing to call.

    False if there are addons below it, or if the stock code has something to say about it.
    """
    try:
        func, has_others = getattr(addon, name, None), hasattr(addon, "addons")
        if not func and not has_others:
            return None
        return callable(func) and not has_others
    except Exception:
        return False  # the stock code meets it, and reports it


def speed_up(addons: AddonManager) -> None:
    """Make mitmproxy's own manager pass over addons; leave any other alone."""
    if type(addons) is AddonManager:
        addons.__class__ = DirectAddonManager


def prompt(addons: AddonManager) -> Begin | None:
    """Return what runs hooks at once, or None for a manager that is not mitmproxy's own."""
    if type(addons) is not DirectAddonManager:
        return None
    addons._seen = None  # what was found so far is not all that the new class looks for
    addons.__class__ = PromptAddonManager
    return addons.begin  # type: ignore[no-any-return,attr-defined]
