"""Malformed as events and questions: right as HTTP, wrong in what they say."""

from __future__ import annotations

import gzip
import json
import string
from random import Random
from typing import Any

from tests.door.parts import BATCH, JSON, STRUCTURED, TEA, Made, ask, binary, cut, envelope, in_one_piece, kind, word

LATIN = [bytes([n]) for n in range(0x80, 0x100)]

# --- no events ----------------------------------------------------------------------------------------------------------


@kind("400 malformed-event")
def header_that_is_no_utf8(rng: Random) -> Made:
    bad = rng.choice((rng.choice(LATIN), b"a" + rng.choice(LATIN), b"%ff", b"%c3", b"%ed%a0%80", b"\xed\xa0\x80"))
    return binary(rng, **{rng.choice(("id", "source", "type", "time", "whatever")): bad})


@kind("404 not-found | 422 unknown-type")
def path_with_bad_escapes(rng: Random) -> Made:
    begin = rng.choice((b"/events", b"/ask/", b"/"))
    bad = rng.choice((b"%zz", b"%", b"%f", b"%ff", b"%00", b"%2e%2e", b"/../../etc/passwd", b"//", b"%ed%a0%80", b"%0d%0aa:b"))
    return binary(rng).replace(b"/events", begin + bad, 1)


@kind("400 malformed-json")
def body_that_is_no_utf8(rng: Random) -> Made:
    bad = b'{"sku": "%b"}' % rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf"))
    whole = b'{"specversion": "1.0", "id": "1", "source": "/", "type": "shop.placed", "data": %b}' % bad
    return rng.choice((binary(rng, bad), in_one_piece(whole), in_one_piece(b"[%b]" % whole, BATCH)))


@kind("422 invalid-event | 400 malformed-json | 400 malformed-event | 400 bad-request")
def characters_that_no_store_holds(rng: Random) -> Made:
    bad = rng.choice(("\0", "a\0b", "\ud800", "\udfff\ud800"))
    name = rng.choice(("id", "source", "type", "sku"))
    if name == "sku":
        return rng.choice((binary(rng, json.dumps({"sku": bad}).encode()), in_one_piece(envelope(rng, data={"sku": bad}))))
    return in_one_piece(envelope(rng, **{name: bad}))


@kind("415 wrong-content-type")
def content_type_that_is_not_taken(rng: Random) -> Made:
    bad = (b"text/plain", b"application/xml", b"*/*", b";;;", b"json", b"multipart/form-data; boundary=x")
    charsets = (b"; charset=utf-16", b"; charset=", b"; charset=latin-1", b"; Charset=\xff")
    clouds = (b"application/cloudevents", b"application/cloudevents+xml", b"application/cloudevents-batch")
    return binary(rng, media=rng.choice((*bad, *clouds, *(JSON + charset for charset in charsets))))


@kind("415 wrong-content-type")
def body_that_is_compressed(rng: Random) -> Made:
    body = gzip.compress(TEA)
    coding = rng.choice((b"gzip", b"GZIP", b"x-gzip", b"deflate", b"br", b"zstd", b"gzip, gzip", b"nonsense"))
    return binary(rng, rng.choice((body, cut(rng, body), TEA)), b"content-encoding: " + coding + b"\r\n")


@kind("400 malformed-json")
def json_that_is_broken(rng: Random) -> Made:
    whole = json.dumps({"sku": "tea", "qty": rng.randrange(99)}).encode()
    if rng.random() < 0.5:
        return in_one_piece(cut(rng, json.dumps(envelope(rng)).encode()))
    broken = (whole + b"x", b"\xef\xbb\xbf" + whole, b"{'sku': 'tea'}", b'{"sku": NaN}', b'{"sku" "tea"}', b"{,}")
    return binary(rng, rng.choice((cut(rng, whole), *broken)))


@kind("400 malformed-json | 400 malformed-event | 422 invalid-event")
def json_that_is_deep(rng: Random) -> Made:
    deep = rng.choice((b"[", b'{"a":', b'{"sku":[')) * rng.randrange(1_000, 100_000)
    media = rng.choice((JSON, STRUCTURED, BATCH))
    return binary(rng, rng.choice((deep, b'{"x":' + deep)), media=media)


@kind("422 invalid-event | 400 malformed-json")
def number_that_is_huge(rng: Random) -> Made:
    number = rng.choice((b"1" * rng.randrange(21, 9_000), b"-" + b"9" * 40, b"1e400", b"1e-400", b"1.5", b"-0.1e+999999999"))
    return binary(rng, b'{"sku": "tea", "qty": %b}' % number)


@kind("422 invalid-event")
def fields_that_do_not_fit(rng: Random) -> Made:
    data = rng.choice(({}, {"sku": 7}, {"sku": None}, {"sku": ""}, {"sku": "tea", "qty": "x"}, [], "tea", None, True, 7))
    return rng.choice((binary(rng, json.dumps(data).encode()), in_one_piece(envelope(rng, data=data))))


@kind("400 malformed-event")
def specversion_of_another_time(rng: Random) -> Made:
    bad = rng.choice(("0.3", "1.1", "2.0", "1", "1.0.0", "", " ", "one", "1.0\t1"))
    return in_one_piece(envelope(rng, specversion=bad)) if rng.random() < 0.5 else binary(rng, specversion=bad.encode())


@kind("400 malformed-event")
def attribute_that_is_missing(rng: Random) -> Made:
    name = rng.choice(("specversion", "id", "source", "type"))
    if rng.random() < 0.5:
        return binary(rng, **{name: rng.choice((None, b""))})
    plain = envelope(rng)
    plain[name] = rng.choice(("", None, 7, [], {}))
    return in_one_piece(plain if rng.random() < 0.5 else {k: v for k, v in plain.items() if k != name})


@kind("400 malformed-event")
def attribute_with_control_characters(rng: Random) -> Made:
    bad = chr(rng.choice((*range(1, 0x20), *range(0x7F, 0xA0))))
    name = rng.choice(("id", "source", "type"))
    if rng.random() < 0.5:
        return in_one_piece(envelope(rng, **{name: f"a{bad}b"}))
    return binary(rng, **{name: b"a%b" % "".join(f"%{byte:02x}" for byte in bad.encode()).encode()})


@kind("400 malformed-event")
def attribute_that_is_there_twice(rng: Random) -> Made:
    name = rng.choice((b"ce-id", b"CE-ID", b"ce-source", b"ce-type", b"ce-specversion", b"content-type"))
    return binary(rng, more=name + b": " + word(rng) + b"\r\n")


@kind("400 malformed-event")
def time_that_is_none(rng: Random) -> Made:
    bad = ("now", "2026-13-01T00:00:00Z", "2026-01-01", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00", "1763999999", "٢026", "")
    time = rng.choice(bad)
    return in_one_piece(envelope(rng, time=time)) if rng.random() < 0.5 else binary(rng, time=time.encode())


@kind("400 malformed-event")
def priority_that_is_none(rng: Random) -> Made:
    bad = rng.choice(("urgent", "5", "-1", "", "1.0", "٣", "normal,low", "9" * 200))
    if rng.random() < 0.5:
        return in_one_piece(envelope(rng, priority=rng.choice((bad, 5, -1, 2.5, [], 10**30))))
    return binary(rng, priority=bad.encode() or b"''")


@kind("422 unknown-type")
def type_that_nobody_handles(rng: Random) -> Made:
    kind = rng.choice((b"shop.placd", word(rng, string.printable[:94].replace("%", ""), 1000), b"shop.placed.", b"Shop.Placed"))
    return binary(rng, type=b"x" + kind)


@kind("202")
def extensions_with_odd_names(rng: Random) -> Made:
    """Attributes that nobody knows are nobody's mistake."""
    name = rng.choice(("", " ", "ä", "a b", "DATA", "_", "x" * 500, "data_", "\x01", "id\n"))
    if rng.random() < 0.5:
        return in_one_piece(envelope(rng, **{name: rng.choice((1, None, [], {"a": [1.5]}, "x"))}))
    return binary(rng, **{rng.choice(("", "x-y", "_", "!", "~", "data", "x" * 900)): b"1"})


@kind("400 malformed-event")
def data_in_base64_that_is_none(rng: Random) -> Made:
    plain = envelope(rng, data_base64=rng.choice(("e30=", "?", "e30", "=", "€", 7, " e30=")))
    if plain["data_base64"] != "e30=":
        del plain["data"]
    return in_one_piece(plain)


@kind("400 malformed-event | 422 invalid-event | 422 unknown-type | 415 wrong-content-type")
def batch_with_a_bad_event(rng: Random) -> Made:
    bad: list[Any] = [7, None, [], {}, envelope(rng, id=""), envelope(rng, type="nope"), envelope(rng, data={"sku": 7})]
    bad += [envelope(rng, specversion="0.3"), envelope(rng, datacontenttype="text/xml"), envelope(rng, priority="x")]
    batch: list[Any] = [envelope(rng) for _ in range(rng.randrange(5))]
    batch.insert(rng.randint(0, len(batch)), rng.choice(bad))
    return in_one_piece(batch, BATCH)


@kind("400 malformed-event | 400 malformed-json")
def batch_that_is_no_list(rng: Random) -> Made:
    return in_one_piece(rng.choice((envelope(rng), {}, "x", 7, None, b"", b"[", b"[,]", b"[]]")), BATCH)


@kind("202")
def batch_of_nothing(rng: Random) -> Made:
    return in_one_piece(b"[" + b" " * rng.randrange(99) + b"]", BATCH)


# --- no questions -------------------------------------------------------------------------------------------------------


@kind("400 malformed-header")
def deadline_that_is_none(rng: Random) -> Made:
    bad = (b"0", b"-1", b"soon", b"", b"301", b"9" * 500, b"1e2", b"nan", b"inf", b"\xb2", b"1_0", b"1.2.3")
    return ask(rng, more=b"prefer: wait=" + rng.choice(bad) + b"\r\n")


@kind("400 malformed-header | 400 bad-request")
def key_that_is_none(rng: Random) -> Made:
    key = rng.choice((b'""', b"", b"\xff", b"x" * 1025, b"a\x7fb", b"a\tb", "a\x85b".encode()))
    return ask(rng, more=b"idempotency-key: " + key + b"\r\n")


@kind("422 unknown-type | 422 no-request | 422 invalid-event | 400 malformed-json | 415 wrong-content-type")
def question_that_is_none(rng: Random) -> Made:
    kind = rng.choice((b"nope", b"shop.placed", b"%41", b"a/b", b"x" * rng.randrange(2_000, 60_000)))
    made = ask(rng, b"shop.level", body=rng.choice((b"{", b"[]", b'{"sku": 7}', b"\xff")))
    return rng.choice((ask(rng, kind, body=TEA), made, ask(rng, more=b"content-type: text/plain\r\n")))
