"""Malformed as HTTP: heads, bodies, sizes, and clients that are slow or gone."""

from __future__ import annotations

from random import Random

from tests.door.parts import (
    BATCH,
    CLOSE,
    TEA,
    Made,
    attributes,
    binary,
    chunk,
    chunked,
    cut,
    envelope,
    fresh,
    head,
    in_one_piece,
    kind,
    lines,
    pieces,
    sized,
    word,
)
from tests.door.talk import Case

BEHIND = b"x" * 40

# --- no HTTP ------------------------------------------------------------------------------------------------------------


@kind("400 bad-request")
def request_line_that_is_none(rng: Random) -> Made:
    lines = (b"POST", b"POST /events", b"POST /events HTTP/1.1 x", b": : :", b"POST /a b HTTP/1.1")
    return rng.choice((*lines, word(rng).lower() + b" /events HTTP/1.1")) + b"\r\nhost: x\r\n\r\n"


@kind("400 bad-request")
def version_that_is_none(rng: Random) -> Made:
    version = rng.choice((b"HTTP/9.9", b"HTTP/1.10", b"HTTP/1", b"HTTP/-1.1", b"http/1.1", b"HTP/1.1", b"ICE/1.0"))
    return binary(rng).replace(b"HTTP/1.1", version, 1)


@kind("400 bad-request")
def first_words_of_another_protocol(rng: Random) -> Made:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200)
    others = (b"SSH-2.0-OpenSSH_9.2\r\n", b"EHLO me\r\n", b"*1\r\n$4\r\nPING\r\n", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n")
    return rng.choice((hello, hello, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(9), *others)) + BEHIND


@kind("400 bad-request")
def bytes_of_chance(rng: Random) -> Made:
    return bytes([rng.choice(b"\x00\x01\x7f{}[]<>\xff\xfe")]) + rng.randbytes(rng.randrange(400)) + b"\r\n\r\n"


@kind("400 bad-request")
def header_line_that_is_none(rng: Random) -> Made:
    bad = (b"no colon", b"ce id: 1", b": 1", b"ce-x : 1", b"a\x00b: 1", b"a: b\x00c", b"a: b\rc: d", b"\xe4: 1", b"a(b): 1")
    return binary(rng, more=rng.choice(bad) + b"\r\n")


@kind("400 bad-request")
def header_that_is_folded(rng: Random) -> Made:
    return binary(rng, more=b"ce-x: a\r\n" + rng.choice((b" ", b"\t", b"  \t")) + b"b\r\n")


@kind("400 bad-request")
def no_host(rng: Random) -> Made:
    return binary(rng).replace(b"host: x\r\n", b"", 1)


@kind("400 bad-request")
def two_hosts(rng: Random) -> Made:
    return binary(rng, more=b"Host: " + rng.choice((b"x", b"y", b"")) + b"\r\n")


@kind("400 bad-request | 404 not-found")
def target_of_no_http(rng: Random) -> Made:
    targets = (b"events", b"*", b"/ev\x00ents", b"/ev\xff", b"/\xc3\xa4", b"\\events", b"", b"http://", b"//:x")
    return binary(rng).replace(b"/events", rng.choice(targets), 1)


# --- where a body ends --------------------------------------------------------------------------------------------------


@kind("400 bad-request")
def two_content_lengths(rng: Random) -> Made:
    return binary(rng, more=b"content-length: %d\r\n" % rng.choice((len(TEA), 0, 1, 10**6)))


@kind("400 bad-request")
def content_length_that_is_none(rng: Random) -> Made:
    length = rng.choice((b"-1", b"+14", b"0x0e", b"14 14", b"1e1", b"", b"9" * 30, b"14,14", b"\xb2", b"14.0"))
    return head(lines(attributes(rng)) + b"content-length: " + length + b"\r\n\r\n") + TEA


@kind("400 bad-request")
def content_length_and_chunks(rng: Random) -> Made:
    both = [b"content-length: %d\r\n" % rng.randrange(99), b"transfer-encoding: chunked\r\n"]
    rng.shuffle(both)
    smuggled = b"0\r\n\r\nGET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"
    return head(lines(attributes(rng)) + b"".join(both) + b"\r\n") + smuggled


@kind("400 bad-request")
def transfer_encoding_that_is_none(rng: Random) -> Made:
    coding = rng.choice((b"nonsense", b"chunked, gzip", b"xchunked", b"chunked chunked", b"identity", b"chunked;"))
    return head(lines(attributes(rng)) + b"transfer-encoding: " + coding + b"\r\n\r\n") + chunk(TEA) + b"0\r\n\r\n"


@kind("400 bad-request")
def chunk_size_that_is_none(rng: Random) -> Made:
    size = rng.choice((b"zz", b"-1", b"+e", b"0xe", b"", b" ", b"f" * 20, b"e e", b"1_0"))
    return chunked(rng, *rng.choice(((), (chunk(TEA),))), size + b"\r\n", TEA, b"\r\n0\r\n\r\n")


@kind("400 bad-request")
def chunk_that_is_longer_than_its_size(rng: Random) -> Made:
    return chunked(rng, b"%x\r\n" % rng.randrange(1, len(TEA)) + TEA + b"\r\n0\r\n\r\n")


@kind("cut")
def body_that_is_cut(rng: Random) -> Made:
    whole = binary(rng)
    return Case((whole[: -rng.randint(1, len(TEA))],), end=True)


@kind("cut")
def chunks_that_are_cut(rng: Random) -> Made:
    whole = chunked(rng, chunk(TEA), b"0\r\n\r\n")
    return Case((whole[: -rng.randint(1, 20)],), end=True)


@kind("cut")
def head_that_is_cut(rng: Random) -> Made:
    whole = binary(rng)
    return Case((cut(rng, whole[: -len(TEA) - 3]),), end=True)


@kind("400 malformed-event")
def attributes_behind_the_body(rng: Random) -> Made:
    """In trailers: what is no header of the request must not become one, however the bytes are cut."""
    given = attributes(rng)
    late = {name: given.pop(name) for name in rng.sample(sorted(given), rng.randint(1, 4))}
    raw = head(lines(given) + b"transfer-encoding: chunked\r\n\r\n") + chunk(TEA) + b"0\r\n" + lines(late) + b"\r\n"
    return Case(rng.choice(((raw,), pieces(rng, raw))))


@kind("202", "400 bad-request")
def nonsense_behind_a_good_request(rng: Random) -> Made:
    good = binary(rng).replace(CLOSE, b"", 1)
    return good + bytes([rng.choice(b"\x00{}<\xff:")]) + rng.randbytes(rng.randrange(99)) + b"\r\n\r\n"


@kind("202", "202", "400 bad-request")
def broken_chunk_behind_good_requests(rng: Random) -> Made:
    good = binary(rng).replace(CLOSE, b"", 1) + binary(rng).replace(CLOSE, b"", 1)
    return good + chunked(rng, b"zz\r\n").replace(CLOSE, b"", 1)


# --- too much -----------------------------------------------------------------------------------------------------------


@kind("431 headers-too-large | 400 bad-request | cut")
def bomb_of_many_headers(rng: Random) -> Made:
    return binary(rng, more=b"".join(b"x-%d: y\r\n" % n for n in range(rng.randrange(8_000, 20_000))))


@kind("431 headers-too-large | 400 bad-request | cut")
def bomb_of_one_header(rng: Random) -> Made:
    return binary(rng, more=b"x: " + b"y" * rng.randrange(66_000, 400_000) + rng.choice((b"\r\n", b"")))


@kind("431 headers-too-large | 400 bad-request | cut")
def bomb_of_a_path(rng: Random) -> Made:
    return binary(rng).replace(b"/events", b"/" + rng.choice((b"x", b"%41", b"?")) * rng.randrange(66_000, 100_000), 1)


@kind("431 headers-too-large | 400 bad-request | cut")
def bomb_behind_the_body(rng: Random) -> Made:
    many = b"".join(b"x-%d: y\r\n" % n for n in range(rng.randrange(8_000, 20_000)))
    return chunked(rng, chunk(TEA), b"0\r\n", rng.choice((many, b"x: " + b"y" * rng.randrange(66_000, 400_000))), b"\r\n\r\n")


@kind("413 too-large")
def body_that_is_too_large(rng: Random) -> Made:
    size = rng.randint(1, 2000)
    return binary(rng, b" " * ((1 << 20) + size))


@kind("413 too-large")
def body_that_is_said_to_be_too_large(rng: Random) -> Made:
    length, more = rng.choice(((9 << 20, b""), (2 << 20, b"expect: 100-continue\r\n"), (10**15, b"")))
    return head(lines(attributes(rng)) + more + b"content-length: %d\r\n\r\n" % length)


@kind("413 batch-too-large")
def batch_that_is_too_large(rng: Random) -> Made:
    first = fresh(rng)
    return in_one_piece([envelope(rng, id=f"{first}-{n}") for n in range(rng.randint(451, 1200))], BATCH)


@kind("400 malformed-event")
def attribute_that_is_too_long(rng: Random) -> Made:
    name, length = rng.choice(("id", "source", "type")), rng.randint(1025, 9000)
    if rng.random() < 0.5:
        return in_one_piece(envelope(rng, **{name: "x" * length}))
    return binary(rng, **{name: rng.choice((b"x", b"%41", "€".encode())) * length})


# --- the rest of the door -----------------------------------------------------------------------------------------------


@kind("405 wrong-method | 405")
def method_that_is_not_allowed(rng: Random) -> Made:
    method = rng.choice((b"GET", b"HEAD", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND"))
    path = rng.choice((b"/events", b"/ask/shop.level"))
    if rng.random() < 0.3:
        method, path = rng.choice((b"POST", b"PUT", b"DELETE")), rng.choice((b"/livez", b"/readyz", b"/metrics"))
    return head(line=method + b" " + path + b" HTTP/1.1") + sized(b"")


@kind("404 not-found | 404")
def path_that_is_not_there(rng: Random) -> Made:
    path = rng.choice((b"/", b"/event", b"/events/", b"/ask", b"/metrics/x", b"/" + word(rng), b"/" + word(rng) + b"?events"))
    return head(line=rng.choice((b"GET", b"HEAD", b"POST")) + b" " + path + b" HTTP/1.1") + sized(b"")


@kind("202")
def odd_expectation(rng: Random) -> Made:
    """Who waits for a 100 gets one, and whoever asks for something else is not kept from sending."""
    wish = rng.choice((b"100-continue", b"100-Continue", b"200-ok", b"", b"100-continue, x"))
    return binary(rng, more=b"expect: " + wish + b"\r\n")


@kind("202")
def wish_to_speak_something_else(rng: Random) -> Made:
    other = rng.choice((b"h2c", b"websocket", b"TLS/1.0", b"nonsense"))
    more = b"upgrade: " + other + b"\r\nconnection: upgrade\r\nhttp2-settings: AAMAAABk\r\nsec-websocket-version: 13\r\n"
    return Case((binary(rng, more=more).replace(CLOSE, b"", 1),), end=True)


@kind("202")
def good_request_in_small_pieces(rng: Random) -> Made:
    raw = rng.choice((binary(rng), chunked(rng, *(chunk(TEA[n : n + 1]) for n in range(len(TEA))), b"0\r\n\r\n")))
    return Case(pieces(rng, b"\r\n" * rng.randrange(3) + raw))


# --- clients that are gone, or slow -------------------------------------------------------------------------------------


@kind("cut")
def client_that_is_gone(rng: Random) -> Made:
    return Case((cut(rng, binary(rng)[: -len(TEA)]),), reset=True)


@kind("cut", slow=True)
def head_that_does_not_end(rng: Random) -> Made:
    whole = head(lines(attributes(rng)))
    begun, drip = rng.choice(((b"", b""), (b"P", b""), (b"", b"\r\n"), (cut(rng, whole), b""), (whole, b"x-more: y\r\n")))
    return Case((begun,), drip=drip)


@kind("408 body-too-slow", slow=True)
def body_that_does_not_end(rng: Random) -> Made:
    return Case((binary(rng, b" " * 100)[: -rng.randint(50, 100)],), drip=rng.choice((b"", b" ")))


@kind("408 body-too-slow", slow=True)
def chunk_that_does_not_end(rng: Random) -> Made:
    begun = chunked(rng, chunk(TEA), rng.choice((b"5;", b"0\r\nx-behind: ")))
    return Case((begun,), drip=rng.choice((b"", b"x")))


@kind("408 body-too-slow", slow=True)
def body_that_does_not_end_and_nobody_wants(rng: Random) -> Made:
    line = rng.choice((b"POST /nope HTTP/1.1", b"PUT /events HTTP/1.1", b"POST /livez HTTP/1.1"))
    return Case((head(b"content-length: 100\r\n\r\n", line).replace(CLOSE, b"", 1), b"x"), drip=rng.choice((b"", b"x")))
