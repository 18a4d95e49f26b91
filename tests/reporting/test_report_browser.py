"""The pages in Debian's Chromium, driven by playwright without a browser of its own."""

import itertools
import shutil

import pytest

from rpo_pipeline.reporting.comparison_page import render_comparison
from rpo_pipeline.reporting.report import render_report
from rpo_pipeline.reporting.samples import EACH
from tests.reporting.findings import interval, make_findings, make_generations, make_summary

playwright = pytest.importorskip("playwright.sync_api", reason="make integration installs it")
pytestmark = pytest.mark.integration

# Contrast of every visible text with what lies behind it; WCAG AA wants 4.5.
CONTRAST = """() => {
  const parse = c => (c.match(/[\\d.]+/g) ?? []).map(Number);
  const light = c => parse(c).slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (parse(c)[3] !== 0) return c;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.body.querySelectorAll("*")].filter(e => e.checkVisibility() &&
    e.tagName !== "SCRIPT" &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
  return texts.map(e => {
    const style = getComputedStyle(e), svg = e.namespaceURI.endsWith("svg");
    const [a, b] = [light(svg ? style.fill : style.color), light(ground(e))].sort((x, y) => y - x);
    return [(a + .05) / (b + .05), e.textContent.trim().slice(0, 40)];
  });
}"""


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    summary = make_summary()
    summary.challenger["lm_eval_missing_acc"] = {"value": None, "low": None, "high": None}
    generations = make_generations()
    generations.loc[0, "response"] = "<script>document.title = 'planted'</script> zebra"
    shipped = {"promotion": {"mode": "auto"}, "training": {"objective": "kto"}}
    long = {"parameters": {**shipped, "policy": {"path": "x" * 300}}}
    pages = {
        "report": render_report(make_findings(summary=summary, generations=generations, **long)),
        "comparison": render_comparison(make_comparison()),
    }
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page)
    return folder


def make_comparison():
    methods = [
        {
            **{"name": name, "parameter": f"{name}.tau", "value": 1.0},
            "curve": [
                {
                    "value": value,
                    "validation_divergence": 2 / value,
                    "divergence": interval(2 / value),
                    "outcome": interval(reward - 0.1 / value),
                }
                for value in (0.5, 1.0)
            ],
            "budgets": [
                {
                    "budget": budget,
                    "outcome": interval(reward)
                    if budget < 4
                    else dict.fromkeys(("value", "low", "high")),
                    "difference": difference,
                }
                for budget in (1.0, 3.0, 4.0)
            ],
            "metrics": {
                **{"reward_mean": interval(reward), "win_rate": interval(0.5)},
                "kl_reference": interval(2.0),
            },
            "seeds": {
                **{"outcome": [reward, reward + 0.1], "outcome_std": 0.07, "distinct_2": 0.5},
                **{"loss_std": 0.1, "grad_norm_std": 0.1},
            },
            "difference": difference,
        }
        for name, reward, difference in (
            ("rpo", 0.3, None),
            ("kto", 0.1, {**interval(-0.2), "p_holm": 0.01}),
            ("sft", 0.2, {**interval(0.01), "p_holm": 0.8}),
        )
    ]
    reference = {"reward_mean": interval(0.0), "win_rate": interval(0.5, 0.0)}
    noise = [
        {
            **{"method": name, "level": level, "outcome": interval(0.3 - level / 5)},
            **{"kl_reference": 2.0, "difference": difference},
        }
        for level in (0.0, 0.5, 1.0)
        for name, difference in (("rpo", None), ("kto", interval(-0.1)))
    ]
    return {
        **{"baseline": "rpo", "methods": methods, "reference": reference, "num_prompts": 40},
        **{"metric": "reward_mean", "budget": 3.0, "seeds": [0, 1], "curve_seeds": [0]},
        **{"detectable_difference": 0.1, "studies": {"reward_noise": noise}},
        "winner": {
            **{"method": "rpo", "above": ["kto"], "level": ["sft"], "out_of_reach": []},
        },
    }


@pytest.fixture
def open_page(browser, files):
    """Opens a page; at the end nothing was fetched, and the console is empty."""
    contexts, said = [], []

    def load(name, width=1200, scheme="light"):
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url))
        page.goto((files / f"{name}.html").as_uri())
        return page

    yield load
    for context in contexts:
        context.close()
    assert [text for text in said if text != (files / text.rpartition("/")[2]).as_uri()] == []


@pytest.mark.parametrize("name", ["report", "comparison"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_both_schemes(open_page, name, scheme):
    page = open_page(name, scheme=scheme)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    found = page.evaluate(CONTRAST)
    assert len(found) > 50
    assert [text for contrast, text in found if contrast < 4.5] == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("name", ["report", "comparison"])
@pytest.mark.parametrize("width", [390, 1200])
def test_no_page_scrolls_sideways(open_page, name, width):
    page = open_page(name, width)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inner = "[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)"
    assert not page.evaluate(inner)


def test_a_table_sorts_by_mouse_and_keyboard_with_what_is_missing_at_the_end(open_page):
    page = open_page("report")
    table = page.locator("table").first
    button = table.get_by_role("button", name="Challenger")
    cells = table.locator("tbody td:nth-child(3)")

    def column():
        return [cell.get_attribute("data-key") for cell in cells.all()]

    assert column()[:2] == ["0.6000000000000001", "-0.1"]
    button.click()
    header = table.locator("th").filter(has_text="Challenger")
    rising = [float(key) for key in column()[:-1]]
    assert rising == sorted(rising)
    assert header.get_attribute("aria-sort") == "ascending"
    button.focus()
    page.keyboard.press("Enter")
    assert [float(key) for key in column()[:-1]] == rising[::-1]
    assert column()[-1] == ""
    assert header.get_attribute("aria-sort") == "descending"
    table.get_by_role("button", name="Metric").click()
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names, key=str.lower)
    assert header.get_attribute("aria-sort") == "none"


def test_samples_are_filtered_by_kind_and_by_words(open_page):
    page = open_page("report")
    shown = page.locator(".sample:visible")
    assert shown.count() == EACH
    page.get_by_role("button", name="Best").click()
    assert shown.count() == EACH
    assert all("best" in sample.get_attribute("data-kinds") for sample in shown.all())
    page.get_by_role("button", name="All", exact=True).click()
    assert shown.count() > 2 * EACH
    page.get_by_role("searchbox").fill("ZEBRA kettle")
    assert shown.count() == 1
    assert page.get_by_role("status").inner_text().startswith("1 of ")
    assert page.title() == "RPO report: passed"  # the planted script is text


def test_paper_is_white_shows_what_is_folded_and_no_controls(open_page):
    page = open_page("report", scheme="dark")
    folded = page.locator("details dd").first
    assert not folded.is_visible()
    page.emulate_media(media="print")
    assert folded.is_visible()
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    assert page.locator(".controls:visible, nav:visible").count() == 0
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_on_a_phone_a_table_is_cards_that_still_sort(open_page):
    page = open_page("comparison", width=390)
    table = page.locator("table").first
    assert table.get_by_role("row").count() == 4
    table.get_by_role("button", name="1 nats").click()
    assert table.locator("tbody th").all_inner_texts() == ["kto", "sft", "rpo"]
    tops = [box["y"] for row in table.locator("tbody tr").all() if (box := row.bounding_box())]
    assert all(a < b for a, b in itertools.pairwise(tops))
    assert (
        page.locator("h1").inner_text()
        == "At 3 nats, rpo has the highest reward; clearly above kto; not to be told from sft."
    )
