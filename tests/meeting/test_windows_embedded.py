"""Windows of real speech through the recognizer that needs no key."""

from __future__ import annotations

from pathlib import Path

from edge.meeting.records import CHUNK_BYTES
from tests.asr.support.embedded import caretaker, recognizer, requires_embedded, speech
from tests.meeting.support.stored import SESSION, worker

pytestmark = requires_embedded


async def test_w24_windows_of_a_recording_say_what_was_said_with_its_tail(tmp_path: Path) -> None:
    """23.5 s of a reader: windows 1 to 10, 11 to 20 and, shorter than a hop, up to 24."""
    pcm = speech("two_cities")[0][: 47 * CHUNK_BYTES // 2]
    with caretaker() as running:
        async with (
            recognizer(running.socket) as embedded,
            worker(tmp_path, embedded, asr_hop_seconds=10) as w,
        ):
            await w.speak(pcm, "students")
            result = await w.windows.run(SESSION, "students")
            raw = await w.raw("students")
    assert (result.generated, result.last_error, result.last_window_end_seq) == (3, None, 24)
    assert [(each.start_seq, each.end_seq) for each in raw] == [(1, 10), (11, 20), (15, 24)]
    assert raw[-1].end_ms == len(pcm) * 1000 // CHUNK_BYTES == 23_500
    text = " ".join(each.text for each in raw).lower()
    for words in ("best of times", "age of wisdom", "season of light"):
        assert words in text
    assert {each.asr_provider for each in raw} == {"embedded"}
