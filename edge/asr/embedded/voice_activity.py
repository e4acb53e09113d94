"""Speech probabilities of many tracks, computed together in one thread of the worker.

Comes in: PCM of each track, in pieces of any size. Goes out: for each 32 ms frame a speech
probability and a loudness, handed to the track's callback on the event loop.

Silero VAD v6 (MIT), 16 kHz graph: input (n, 576) = 64 samples of context and 512 new ones, state
(2, n, 128). Rows of one run are independent, and eight rows cost half of eight runs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final

import numpy as np

from edge.asr.embedded.runtime import Float32, load_session, to_floats
from edge.asr.embedded.segmenter import FRAME, RATE_HZ
from edge.asr.embedded.weights import VOICE_ACTIVITY

CONTEXT: Final = 64
FRAME_BYTES: Final = FRAME * 2
FRAMES_AT_ONCE: Final = 8
"""Frames of one track in one turn, so that a replaying track does not hold up the others."""
ROWS_AT_ONCE: Final = 32
MOST_WAITING_BYTES: Final = 60 * RATE_HZ * 2
"""A track further behind than a minute is refused more audio."""
SETTLED_FRAMES: Final = 8
"""After so many frames of digital silence the model is not asked about more of it."""

Judged = Callable[[list[tuple[float, float]]], None]
"""Takes (probability, loudness) of consecutive frames; loudness is the RMS, full scale 1."""

_RATE: Final = np.array(RATE_HZ, dtype=np.int64)


class VoiceTrack:
    """One track's audio on its way to the model."""

    def __init__(self, judged: Judged) -> None:
        self.judged = judged
        self.waiting = bytearray()
        self.state: Float32 = np.zeros((2, 128), dtype=np.float32)
        self.context: Float32 = np.zeros(CONTEXT, dtype=np.float32)
        self.zero_frames = 0
        self.closed = False


class VoiceActivity:
    """The VAD thread of a worker. Its methods are for the event loop that made it."""

    def __init__(self) -> None:
        """Load the model and start the thread (0.2 s, mostly the first import of onnxruntime)."""
        self._session = load_session(VOICE_ACTIVITY.verify())
        self._wake = threading.Condition()
        self._ready: dict[VoiceTrack, None] = {}
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="voice-activity", daemon=True)
        self._thread.start()

    def open(self, judged: Judged) -> VoiceTrack:
        """A new track; ``judged`` is called on the running event loop."""
        self._loop = asyncio.get_running_loop()
        return VoiceTrack(judged)

    def feed(self, track: VoiceTrack, audio: bytes) -> bool:
        """Queue audio of ``track``; False, and nothing queued, when it is a minute behind."""
        with self._wake:
            if len(track.waiting) + len(audio) > MOST_WAITING_BYTES:
                return False
            track.waiting += audio
            if len(track.waiting) >= FRAME_BYTES:
                self._ready[track] = None
                self._wake.notify()
        return True

    def close(self, track: VoiceTrack) -> None:
        """Forget ``track``; its callback is not called any more."""
        with self._wake:
            track.closed = True
            track.waiting.clear()
            self._ready.pop(track, None)

    def stop(self) -> None:
        """End the thread; returns when it has ended (it finishes at most one turn)."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._ready or self._stopping)
                if self._stopping:
                    return
                turn = self._take()
            answers = self._judge(turn)
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(_hand_over, answers)
            except RuntimeError:  # the loop has closed: nobody is left to tell
                return

    def _take(self) -> list[tuple[VoiceTrack, bytes]]:
        """The next frames of the tracks that wait longest; those with more go to the end."""
        turn: list[tuple[VoiceTrack, bytes]] = []
        for track in list(self._ready)[:ROWS_AT_ONCE]:
            del self._ready[track]
            size = min(len(track.waiting) // FRAME_BYTES, FRAMES_AT_ONCE) * FRAME_BYTES
            turn.append((track, bytes(track.waiting[:size])))
            del track.waiting[:size]
            if len(track.waiting) >= FRAME_BYTES:
                self._ready[track] = None
        return turn

    def _judge(
        self, turn: list[tuple[VoiceTrack, bytes]]
    ) -> list[tuple[VoiceTrack, list[tuple[float, float]]]]:
        frames = [to_floats(audio).reshape(-1, FRAME) for _, audio in turn]
        loudness = [np.sqrt((each * each).mean(axis=1)) for each in frames]
        answers: list[tuple[VoiceTrack, list[tuple[float, float]]]] = [(t, []) for t, _ in turn]
        for step in range(max(len(each) for each in frames)):
            rows: list[int] = []
            for index, each in enumerate(frames):
                if step >= len(each):
                    continue
                track, answer = answers[index]
                loud = float(loudness[index][step])
                track.zero_frames = track.zero_frames + 1 if loud == 0.0 else 0
                if track.zero_frames > SETTLED_FRAMES:
                    answer.append((0.0, 0.0))
                else:
                    rows.append(index)
            if not rows:
                continue
            tracks = [answers[index][0] for index in rows]
            for index, probability in zip(
                rows, self._infer(tracks, [frames[i][step] for i in rows]), strict=True
            ):
                answers[index][1].append((probability, float(loudness[index][step])))
        return answers

    def _infer(self, tracks: list[VoiceTrack], frames: list[Float32]) -> list[float]:
        rows = np.empty((len(tracks), CONTEXT + FRAME), dtype=np.float32)
        for row, track, frame in zip(rows, tracks, frames, strict=True):
            row[:CONTEXT] = track.context
            row[CONTEXT:] = frame
            track.context = frame[-CONTEXT:]
        state = np.stack([track.state for track in tracks], axis=1)
        output, state = self._session.run(None, {"input": rows, "state": state, "sr": _RATE})
        for index, track in enumerate(tracks):
            track.state = state[:, index]
        return [float(probability) for probability in output[:, 0]]


def _hand_over(answers: list[tuple[VoiceTrack, list[tuple[float, float]]]]) -> None:
    for track, judged in answers:
        if not track.closed:
            track.judged(judged)
