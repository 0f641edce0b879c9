//! What every HTML page has: it is one file and needs nothing else.

use std::fmt::Write;

use plotters::style::RGBColor;

use super::Result;

/// A whole page around its body; the footer says where the data comes from.
pub fn page(title: &str, body: &str, footer: &str) -> String {
    format!(
        "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>{title}</title>
{STYLE}</head>
<body>
{body}<footer>{footer}</footer>
</body>
</html>
"
    )
}

/// A table, numbers to the right; `key` gives the colour of a row's first cell.
pub fn table(
    page: &mut String,
    header: &[&str],
    rows: &[Vec<String>],
    key: impl Fn(usize) -> Option<RGBColor>,
) -> Result {
    let second = rows.first().and_then(|row| row.get(1)).and_then(|cell| cell.chars().next());
    let class = if second.is_some_and(|c| c.is_ascii_digit() || c == '−') { " class=\"numbers\"" } else { "" };
    write!(page, "<div class=\"scroll\"><table{class}><thead><tr>")?;
    header.iter().try_for_each(|cell| write!(page, "<th>{}</th>", cell.replace(", ", ",&nbsp;")))?;
    page.push_str("</tr></thead><tbody>\n");
    for (i, row) in rows.iter().enumerate() {
        page.push_str("<tr>");
        for (j, cell) in row.iter().enumerate() {
            let key = if j == 0 { key(i).map(swatch) } else { None };
            write!(page, "<td>{}{}</td>", key.unwrap_or_default(), escape(cell))?;
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
    Ok(())
}

/// A small square.
pub fn swatch(RGBColor(r, g, b): RGBColor) -> String {
    format!("<i style=\"background:rgb({r},{g},{b})\"></i>")
}

/// Which line is which, above a picture rather than over its data: titles, colours, and whether dashed.
pub fn legend<'a>(lines: impl IntoIterator<Item = (&'a str, RGBColor, bool)>) -> String {
    let key = |(title, RGBColor(r, g, b), dashed): (&str, RGBColor, bool)| {
        let class = if dashed { "line dashed" } else { "line" };
        format!("<span><i class=\"{class}\" style=\"color:rgb({r},{g},{b})\"></i>{}</span>", escape(title))
    };
    format!("<p class=\"key\">{}</p>", lines.into_iter().map(key).collect::<String>())
}

/// Text as it may stand in a page.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = r#"<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1f24; --soft: #5a6270; --rule: #d9dde3; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181d; --ink: #e4e7ec; --soft: #a2abb8; --rule: #353b45; } }
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; max-width: 1020px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.8rem; margin: 0 0 .6rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .4rem; border-top: 1px solid var(--rule); padding-top: 1.2rem; }
h3 { font-size: 1rem; margin: .4rem 0 0; }
p { margin: .4rem 0; }
.device, .key, footer { color: var(--soft); font-size: .9rem; }
.key span { margin-right: 1.2rem; white-space: nowrap; }
i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; }
i.line { width: 1.8em; height: 0; border-radius: 0; border-top: 3px solid; vertical-align: .25em; }
i.dashed { border-top-style: dashed; }
i.other { background: var(--ink); opacity: .3; }
figure { margin: .8rem 0 0; }
svg { display: block; width: 100%; height: auto; font-family: system-ui, sans-serif; }
.paper { fill: var(--paper); }
.two, .three { display: grid; gap: 1rem 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.two > div { max-width: 34rem; }
.three { grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
.tight th, .tight td { padding: .35rem; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
.numbers th:nth-child(2), .numbers td:nth-child(2) { text-align: right; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: .8rem; }
</style>
"#;
