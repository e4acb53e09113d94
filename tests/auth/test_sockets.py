"""Every protocol of the registry has its rule, written down here: a new one without fails."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from edge.auth.rules import FOLLOWED, SPOKEN, Need, need_of_socket
from edge.ingest.counts import IngestCounts
from edge.ingest.interface import UpgradeRequest
from edge.ingest.registry import DOORS, client_protocols
from edge.ingest.settings import ListenSettings

NOBODY: Any = None
"""For what is not called when a path is looked at."""


class Rule(NamedTuple):
    """How a protocol is asked for, and which scopes one of which is enough."""

    path: str
    query: str = ""
    subprotocols: tuple[str, ...] = ()
    scopes: tuple[str, ...] = SPOKEN


RULES = {
    "MeetingProtocol": [Rule("/v1/audio/ws/mine/teacher"), Rule("/v1/audio/ws/mine")],
    "MediaProtocol": [Rule("/transcribe", "sendBack=true&sessionId=mine")],
    "SessionProtocol": [Rule("/listen", "session=mine", ("edge.session.v1",), FOLLOWED)],
    "ListenProtocol": [Rule("/listen", "session=mine", (), FOLLOWED)],
    "RealtimeProtocol": [
        Rule("/v1/realtime", "intent=transcription&session=mine"),
        Rule("/v1/realtime", "session=mine", ("realtime",)),
    ],
    "DeepgramProtocol": [
        Rule("/v1/listen", "session=mine"),
        Rule("/v1/listen", "session=mine", ("token",)),
    ],
    "TwilioProtocol": [Rule("/twilio", "session=mine")],
    "Nowhere": [Rule("/no/such/path", "sessionId=mine")],
}
"""Of ``/listen`` each protocol tells apart who may speak there and who may only follow."""


def test_every_protocol_has_a_rule_and_knows_its_session() -> None:
    settings = ListenSettings()
    protocols = client_protocols(IngestCounts(), settings, cast(Any, NOBODY), tuple(DOORS))
    assert {type(protocol).__name__ for protocol in protocols} == set(RULES)
    for name, rules in RULES.items():
        for rule in rules:
            request = UpgradeRequest(
                path=rule.path, query=rule.query, subprotocols=rule.subprotocols
            )
            answering = next(each for each in protocols if each.matches(request))
            assert type(answering).__name__ == name, rule
            need = need_of_socket(rule.path, rule.query, settings.listen_paths)
            assert need == Need(rule.scopes, "mine", True), rule
