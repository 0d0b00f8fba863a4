"""Print as JSON what the components must end with: counted from the data, without Genesis and the feed."""

import csv
import gzip
import json
from argparse import ArgumentParser
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path


def read(name: str) -> list[dict[str, str]]:
    with gzip.open(Path(__file__).parent / "data" / f"{name}.csv.gz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


NAMES = "scheduled delayed departed departure_delay_min cancelled arrived diverted weather_reports gust_max_mph"
parser = ArgumentParser(description=__doc__)
parser.add_argument("--scale", type=int, default=1, help="copies of the world")
parser.add_argument("--late-min", type=int, default=120, help="minutes after which a departure is an alert")
options = parser.parse_args()
tags = [f"#{copy}" if copy > 1 else "" for copy in range(1, options.scale + 1)]
airports: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(NAMES.split(), 0))
boards, rebookings, alerts = Counter[str](), Counter[str](), dict[str, str]()
seats = {plane["tailnum"]: int(plane["seats"]) for plane in read("planes")}
for row, tag in product(read("flights"), tags):
    origin, dest, late = row["origin"] + tag, row["dest"] + tag, row["dep_delay"].replace("NA", "0")
    flight = f"2013-02-{row['day']:0>2}/{row['carrier']}{row['flight']}/{origin}"
    end = "cancelled" if row["dep_time"] == "NA" else "diverted" if row["arr_delay"] == "NA" else "arrived"
    airports[origin]["scheduled"] += 1
    airports[origin if end == "cancelled" else dest][end] += 1
    boards[end] += 1
    if end == "cancelled" or int(late) >= options.late_min:
        alerts[flight] = "cancelled" if end == "cancelled" else "late"
    if end == "cancelled" and row["tailnum"] in seats:
        rebookings[flight] = seats[row["tailnum"]]
    elif end != "cancelled":
        airports[origin]["departed"] += 1
        airports[origin]["delayed"] += int(late) >= 60
        airports[origin]["departure_delay_min"] += max(int(late), 0)
for row, tag in product(read("weather"), tags):
    airport, gust = airports[row["origin"] + tag], row["wind_gust"].replace("NA", "0")
    airport["weather_reports"] += 1
    airport["gust_max_mph"] = max(airport["gust_max_mph"], float(gust))
totals = {"airports": airports, "boards": boards, "rebookings": rebookings, "seats": rebookings.total(), "alerts": alerts}
print(json.dumps(totals))
