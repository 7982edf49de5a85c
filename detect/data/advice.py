"""When loading holds the training up: the one setting that would help most."""

from __future__ import annotations

import math

from detect.data.cache import GB, CachePlace, free_bytes
from detect.data.dataset import DetectionDataset
from detect.data.profile import LoaderProfile
from detect.data.workers import LoaderSettings, choose_workers

LEAST_GAIN = 1.1
"""Below this a change is not worth a restart."""
CACHE_GB_ROOM = 1.05


def best_change(
    profile: LoaderProfile, settings: LoaderSettings, *, decoded_gb: float, waiting: float | None = None
) -> str:
    """The setting that speeds loading up most, with the figures that say so; or what else there is.

    Args:
        profile: measured on this machine.
        settings: as they are.
        decoded_gb: of the training images, what a cache would take.
        waiting: share of the time that training waits for the loader; None: of loading alone. However
            fast loading becomes, training saves no more than this share.
    """
    changes = [*_more_workers(profile, settings), *_cache(profile, settings, decoded_gb)]
    if not changes:
        return (
            f"{profile.images_per_s:.0f} images/s per core is what this machine loads with all of its "
            f"{profile.cores} core(s): give it more cores, or store the images smaller"
        )
    gain, change = max(changes)
    if waiting is None:
        return f"{change}: loading up to {gain:.1f} times as fast"
    loading_saved = 1 - 1 / gain  # waiting ends where loading takes no longer than the steps
    saved = min(waiting, loading_saved)
    return f"{change}: training up to {1 / (1 - saved):.1f} times as fast"


def decoded_gb(dataset: DetectionDataset) -> float:
    """Size of all decoded images."""
    shapes = -(-dataset.annotations.sizes.astype("int64") // dataset.draft_scales[:, None])
    return float(shapes.prod(axis=1).sum() * 3 / GB)


def _more_workers(profile: LoaderProfile, settings: LoaderSettings) -> list[tuple[float, str]]:
    wanted = choose_workers(profile.cores, settings.ranks_here)
    # Without workers loading and training take turns: the first worker already lets them overlap.
    gain = wanted / settings.workers if settings.workers else wanted + 1
    if gain < LEAST_GAIN:
        return []
    have = f"now {settings.workers}; {profile.cores} cores, {settings.ranks_here} device(s)"
    return [(gain, f"--data.workers {wanted} ({have})")]


def _cache(profile: LoaderProfile, settings: LoaderSettings, decoded_gb: float) -> list[tuple[float, str]]:
    all_ms = profile.decode_ms + profile.augment_ms + profile.collate_ms
    gain = all_ms / (profile.augment_ms + profile.collate_ms)
    if settings.cached or gain < LEAST_GAIN:
        return []
    why = f"decoding is {profile.decode_ms:.1f} of {all_ms:.1f} ms per image"
    places: tuple[CachePlace, ...] = ("ram", "disk")
    for place in places:
        if decoded_gb * GB <= free_bytes(place):
            size = f"--data.cache_gb {math.ceil(decoded_gb * CACHE_GB_ROOM * 10) / 10:.1f}"
            return [(gain, f"--data.cache {place} {size} ({why}; {decoded_gb:.2f} GB decoded)")]
    return []
