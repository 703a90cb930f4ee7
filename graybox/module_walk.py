"""A network's modules, many times faster than torch's own walk, for what is asked at every edit."""

from __future__ import annotations

from torch import nn


def walk(root: nn.Module) -> list[nn.Module]:
    """As `root.modules()`."""
    seen: set[nn.Module] = set()
    found: list[nn.Module] = []
    waiting = [root]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            found.append(module)
            waiting += [child for child in reversed(module._modules.values()) if child is not None]
    return found


def named_walk(root: nn.Module) -> dict[str, nn.Module]:
    """As `dict(root.named_modules())`."""
    seen: set[nn.Module] = set()
    found: dict[str, nn.Module] = {}
    waiting = [("", root)]
    while waiting:
        name, module = waiting.pop()
        if module not in seen:
            seen.add(module)
            found[name] = module
            prefix = f"{name}." if name else ""
            waiting += [(prefix + key, child) for key, child in reversed(module._modules.items()) if child is not None]
    return found
