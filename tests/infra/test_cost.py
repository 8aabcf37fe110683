"""The cost estimate: quantities from the template, prices only with a source, nothing guessed silently."""

import pytest
import yaml

from infra.config import load
from infra.cost import HOURS, PRICES, Line, Price, Scan, estimate, main, read_prices, render


@pytest.fixture
def lines(production):
    return estimate(load("production"), list(production.templates.values()), Scan())


def quantity(lines, price):
    return sum(line.quantity for line in lines if line.price == price)


def test_idle_quantities_are_those_of_the_template(production, lines):
    endpoints = [
        e
        for e in production.resources("AWS::EC2::VPCEndpoint").values()
        if e["VpcEndpointType"] == "Interface"
    ]
    assert quantity(lines, "interface_endpoint_hour") == len(endpoints) * 2 * HOURS
    assert quantity(lines, "kms_key_month") == 3
    assert quantity(lines, "fsx_lustre_gib_month_250") == 1200
    assert quantity(lines, "alarm_month") == len(production.resources("AWS::CloudWatch::Alarm"))


def test_a_gateway_in_the_vpc_costs_a_machine_and_its_disks(lines, appliance):
    found = estimate(load("production"), list(appliance.templates.values()), Scan())
    assert quantity(found, "gateway_machine_hour") == HOURS
    assert quantity(found, "ebs_gp3_gib_month") == 80 + 150
    assert quantity(lines, "gateway_machine_hour") == 0


def test_the_smallest_environment_stands_for_nothing(dev):
    found = estimate(load("dev"), list(dev.templates.values()), Scan())
    standing = {line.price for line in found if line.kind == "idle" and line.quantity}
    assert standing == {"kms_key_month", "alarm_month", "dashboard_month", "lambda_gib_second"}


def test_a_scan_costs_its_seconds(lines):
    config = load("production")
    assert quantity(lines, "gpu_machine_hour") == pytest.approx(
        config.recon.scaling.scan_seconds * 1000 / 3600
    )
    hours = config.decompress.scaling.scan_seconds * 1000 / 3600
    assert quantity(lines, "fargate_vcpu_hour") == pytest.approx(4 * hours)


def test_every_price_that_is_asked_for_is_in_the_file(lines):
    assert {line.price for line in lines} <= set(read_prices())


@pytest.mark.parametrize(
    "proof",
    [
        {},
        {"source": "https://price.example"},
        {"read_on": "2026-11-01"},
        {"source": "", "read_on": "2026-11-01"},
        {"source": "https://price.example", "read_on": ""},
    ],
)
@pytest.mark.parametrize("value", [1.0, 0.0])
def test_a_price_without_its_source_and_day_is_refused(value, proof):
    with pytest.raises(ValueError, match="needs its source"):
        Price(unit="hour", page="https://price.example", value=value, **proof)


def test_a_price_with_its_source_and_day_is_taken():
    proof = {"source": "https://price.example", "read_on": "2026-11-01"}
    assert Price(unit="hour", page="https://price.example", value=1.0, **proof).value == 1.0


@pytest.mark.parametrize("name", sorted(read_prices()))
def test_no_price_of_the_file_is_taken_without_its_source_and_day(name, tmp_path):
    """Give each price of the shipped file a value: read with a source and a day, refused without one."""
    prices = yaml.safe_load(PRICES.read_text())
    entry, path = prices["prices"][name], tmp_path / "prices.yaml"
    entry |= {"value": 1.0, "source": "https://price.example", "read_on": "2026-11-01"}
    path.write_text(yaml.safe_dump(prices))
    assert read_prices(path)[name].value == 1.0
    for missing in ("source", "read_on"):
        path.write_text(yaml.safe_dump({"prices": prices["prices"] | {name: entry | {missing: None}}}))
        with pytest.raises(ValueError, match="needs its source"):
            read_prices(path)


def test_every_price_names_the_page_that_publishes_it():
    for price in read_prices().values():
        assert price.page.startswith("https://aws.amazon.com/")


def test_an_empty_price_is_told_with_its_page_and_left_out_of_the_sum(tmp_path):
    page = "https://price.example"
    prices = {
        "a": Price(unit="hour", page=page, value=2.0, source=page, read_on="2026-11-01"),
        "b": Price(unit="key", page=f"{page}/keys"),
    }
    lines = [Line("idle", "machines", 10, "a"), Line("idle", "keys", 3, "b")]
    text = render(load("dev"), lines, prices, tmp_path / "prices.yaml")
    assert "sum: 20.00 plus 1 line(s) without a price" in text
    assert f"value, source and read_on of each in {tmp_path / 'prices.yaml'}" in text
    assert f"  {page}/keys\n    b:" in text
    assert "US dollars per key (keys)" in text
    assert "https://price.example (2026-11-01)" in text


def test_without_any_price_no_sum_is_told():
    text = render(load("dev"), [Line("idle", "keys", 3, "kms_key_month")], read_prices())
    assert "sum: unknown" in text
    assert "Prices missing: 1." in text


def test_a_price_file_without_sources_is_refused(tmp_path, capsys):
    told = yaml.safe_load(PRICES.read_text())
    told["prices"]["kms_key_month"]["value"] = 1.0
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(told))
    assert main(["--env", "dev", "--prices", str(tmp_path / "prices.yaml")]) == 2
    assert "needs its source" in capsys.readouterr().err


def test_an_unknown_environment_is_told(capsys):
    assert main(["--env", "nowhere"]) == 2
    assert "takes one of dev" in capsys.readouterr().err
