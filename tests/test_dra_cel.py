"""Selectors mean here what they mean to kube-scheduler, cannot run away, and fail loudly."""

import pytest

from broker.dra.cel import BadSelector, SelectorError, compile_selector
from broker.dra.model import DeviceView, Version
from broker.dra.quantity import parse

GPU = DeviceView(
    driver="gpu.nvidia.com",
    attributes={
        "type": "gpu",
        "uuid": "GPU-1",
        "healthy": True,
        "minor": 3,
        "driverVersion": Version("580.126.20"),
        "resource.kubernetes.io/numaNode": 1,
    },
    capacity={"memory": parse("80Gi")},
)
OWN = "device.attributes['gpu.nvidia.com']"


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("device.driver == 'gpu.nvidia.com'", True),
        (f"{OWN}.type == 'gpu'", True),
        (f"{OWN}.healthy", True),
        (f"{OWN}.minor == 3 && !device.allowMultipleAllocations", True),
        ("device.attributes['resource.kubernetes.io'].numaNode in [0, 1]", True),
        (f"{OWN}.driverVersion.compareTo(semver('580.0.0')) > 0", True),
        (f"{OWN}.driverVersion.isLessThan(semver('580.126.20'))", False),
        (f"{OWN}.driverVersion == semver('580.126.20')", True),
        (f"{OWN}.driverVersion.major() >= 570", True),
        ("semver('1.0.0-rc.2').isLessThan(semver('1.0.0-rc.10'))", True),
        ("semver('1.0.0').isGreaterThan(semver('1.0.0-rc.1'))", True),
        ("semver('1.0.0+a') == semver('1.0.0+b')", True),
        ("semver('v1.2', true) == semver('1.2.0') && !isSemver('v1.2')", True),
        ("device.capacity['gpu.nvidia.com'].memory == quantity('81920Mi')", True),
        ("device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('80G')) == 1", True),
        ("device.capacity['gpu.nvidia.com'].memory.isGreaterThan(quantity('80Gi'))", False),
        ("quantity('1').add(quantity('1')).sub(1).asInteger() == 1 && quantity('-1').sign() == -1", True),
        ("isQuantity('1Gi') && !isQuantity('x') && quantity('1500m').asApproximateFloat() == 1.5", True),
        (f"{OWN}.?brand.orValue('Nvidia') == 'Nvidia'", True),
        (f"has({OWN}.uuid) && !has({OWN}.brand)", True),
        (f"'brand' in {OWN} ? false : true", True),
        (f"cel.bind(d, {OWN}, d.type == 'gpu' && d.minor > 2)", True),
        (f"['Hopper', 'gpu'].exists(a, a == {OWN}.type)", True),
        (f"{OWN}.uuid.matches('^GPU-[0-9]+$') && {OWN}.uuid.lowerAscii().startsWith('gpu')", True),
        (f"{OWN}.nothing == 'x' || true", True),
        (f"sets.contains(['gpu', 'mig'], [{OWN}.type]) && !sets.intersects([1, true], ['1', false])", True),
        ("sets.equivalent([1, 2], [2, 1, 1]) && [1, 2].isSorted() && ![2, 1].isSorted()", True),
        ("[1, 2].sum() == 3 && [1, 2].min() == 1 && ['a', 'b'].max() == 'b'", True),
    ],
)
def test_an_expression_means_what_it_means_to_kubernetes(expression, answer):
    assert compile_selector(expression).matches(GPU) is answer


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("device.attributes['other.example.com'].?x.orValue('none') == 'none'", True),
        ("has(device.attributes['other.example.com'].x)", False),
        ("device.attributes.?other.?x.hasValue()", False),
        ("cel.bind(all, device.attributes, all['other.example.com'].?x.orValue(1) == 1)", True),
        ("'other.example.com' in device.attributes", False),
        ("'other.example.com' in device.attributes || device.attributes['other.example.com'].size() == 0", True),
        ("device.attributes.size() == 2", True),
        ("device.attributes.all(domain, domain != 'other.example.com')", True),
        ("'memory' in device.capacity['other.example.com']", False),
    ],
)
def test_a_domain_that_nobody_published_is_an_empty_map_yet_is_not_there(expression, answer):
    assert compile_selector(expression).matches(GPU) is answer


@pytest.mark.parametrize(
    "expression",
    [
        f"{OWN}.nothing == 'x'",
        "device.attributes['other.example.com'].x == 1",
        f"{OWN}.type + 1 == 2",
        f"{OWN}.type",
        f"{OWN}.uuid.matches('(')",
        "quantity('lots') == quantity('1')",
        "semver('1') == semver('1.0.0')",
        f"{OWN}.driverVersion.compareTo(device.capacity['gpu.nvidia.com'].memory) == 0",
        "quantity('0.5').asInteger() == 0",
        f"{OWN}.minor / 0 == 1",
    ],
)
def test_what_fails_while_evaluating_is_an_error_and_not_a_no(expression):
    with pytest.raises((SelectorError, BadSelector)):
        compile_selector(expression).matches(GPU)


@pytest.mark.parametrize("value", [None, ("a", "b"), Version("not a version"), Version("01.2.3"), 2**64])
def test_an_attribute_that_cannot_be_read_fails_every_selector(value):
    device = DeviceView("d", {"odd": value}, {})
    with pytest.raises(SelectorError, match="attribute odd"):
        compile_selector("device.driver == 'd'").matches(device)


def test_list_attributes_can_be_asked_where_the_feature_is_on():
    device = DeviceView("d", {"links": ("a", "b"), "one": "a"}, {})
    for expression in ("device.attributes['d'].links.includes('b')", "device.attributes['d'].one.includes('a')"):
        assert compile_selector(expression, lists=True).matches(device)
    assert not compile_selector("device.attributes['d'].links.includes('c')", lists=True).matches(device)
    with pytest.raises(BadSelector):
        compile_selector("device.attributes['d'].links.includes('b')")


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "noSuchVariable",
        "device.name == 'gpu-0'",
        "device.pool == 'p'",
        "device.driver",
        "1 + 1",
        "device.capacity['d'].memory > 1",
        "device.capacity['d'].memory.canonical_form_ == '1'",
        "kubernetes.Quantity{canonical_form_: '1'} == quantity('1')",
        "@attributes.size() == 0",
        "true\x00",
        "'\ud800' == ''",
        "device.driver == 'a' &&",
        "'" + "a" * 10_300 + "' == ''",
    ],
)
def test_what_does_not_compile_is_a_bad_selector(expression):
    with pytest.raises(BadSelector):
        compile_selector(expression)


def _doubling(times):
    body = f"s{times}.size() > 0"
    for turn in range(times, 0, -1):
        body = f"cel.bind(s{turn}, s{turn - 1} + s{turn - 1}, {body})"
    return f"cel.bind(s0, 'aaaaaaaaaaaaaaaa', {body})"


NUMBERS = "[" + ",".join("1" * 400) + "]"


@pytest.mark.parametrize(
    "bomb",
    [
        _doubling(20),
        _doubling(200),
        f"{NUMBERS}.all(a, {NUMBERS}.all(b, {NUMBERS}.all(c, a + b == c)))",
        "[1,2,3,4,5,6,7,8,9].all(a, " * 8 + "true" + ")" * 8,
        f"{NUMBERS}.map(a, {NUMBERS}).map(b, b.map(c, {NUMBERS})).size() == 0",
        "'" + "a" * 3000 + "'.replace('a', '" + "b" * 3000 + "').size() == 0",
        "'" + "a" * 4000 + "'.matches('" + "(a|b)" * 800 + "')",
        "(" * 5000 + "true" + ")" * 5000,
        "[" * 5000 + "]" * 5000 + " == []",
        "+".join("1" * 5000) + " == 1",
        "'%s'.format([" + NUMBERS + ".map(a, " + NUMBERS + ")]) == ''",
    ],
    ids=lambda bomb: bomb[:24],
)
def test_an_expression_that_could_run_away_is_refused_before_it_runs(bomb):
    with pytest.raises(BadSelector):
        compile_selector(bomb)


def test_ordinary_loops_are_allowed():
    looping = f"{OWN}.all(name, name != '') && [1, 2, 3].map(n, n * 2).exists(n, n == {OWN}.minor * 2)"
    assert compile_selector(looping).matches(GPU)


def test_compiled_selectors_are_kept():
    assert compile_selector("device.driver == 'kept'") is compile_selector("device.driver == 'kept'")


def test_many_long_expressions_do_not_pile_up():
    first = compile_selector("device.driver == 'first of many'")
    long = " || ".join(f"device.driver == 'x{number}'" for number in range(350))
    for number in range(40):
        compile_selector(f"{long} || device.driver == '{number}'")
    assert compile_selector("device.driver == 'first of many'") is not first


def test_evaluating_many_times_keeps_no_memory():
    import tracemalloc

    selector = compile_selector(
        f"{OWN}.uuid == 'GPU-1' && device.capacity['gpu.nvidia.com'].memory == quantity('80Gi')"
    )
    selector.matches(GPU)
    tracemalloc.start()
    for _ in range(2000):
        selector.matches(GPU)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000
