// SPDX-License-Identifier: Apache-2.0

#include "html.hpp"

namespace gbdt {

std::string_view style_sheet() {
  return R"(
:root {
  --train: #8a93a0; --test: #0b66c3; --good: 11 102 195; --bad: 200 62 40;
}
@media (prefers-color-scheme: dark) {
  :root {
    --train: #8d96a3; --test: #63adf5; --good: 74 152 235; --bad: 235 104 80;
  }
}
p { max-width: none; white-space: normal; }
.figures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 0 0 18px; padding: 0;
}
.figures div {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px;
}
.figures dt { color: var(--soft); font-size: .85rem; }
.figures dd {
  margin: 0; font-size: 1.35rem; font-weight: 650; line-height: 1.3; white-space: nowrap;
  font-variant-numeric: tabular-nums;
}
.figures dd small { display: block; white-space: normal; font-size: .8rem; font-weight: 400; color: var(--soft); }
.figures .main dd { color: var(--test); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); gap: 20px; }
svg text { fill: var(--soft); font-size: 14px; font-family: inherit; }
.curve { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
.curve.train { stroke: var(--train); }
.curve.test { stroke: var(--test); }
.best { stroke: var(--soft); stroke-dasharray: 4 4; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: .9rem; }
.legend span::before {
  content: ""; display: inline-block; width: 18px; height: 3px; margin-right: 6px;
  vertical-align: middle; border-radius: 2px; background: var(--train);
}
.legend .test::before { background: var(--test); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { border: 0; padding: 1px; text-align: left; }
th { font-weight: 500; color: inherit; }
.confusion td {
  text-align: right; padding: 7px 8px; min-width: 52px; border: 2px solid var(--card);
  border-radius: 6px; background: rgb(var(--bad) / var(--a, 0));
}
.confusion td.right { background: rgb(var(--good) / var(--a, 0)); font-weight: 600; }
.confusion td.zero { color: var(--soft); }
.confusion td.recall { background: none; color: var(--soft); padding-left: 14px; }
.confusion thead th {
  vertical-align: bottom; text-align: right; padding: 4px 8px; max-width: 84px;
  overflow-wrap: break-word; color: var(--soft); font-size: .82rem; line-height: 1.2;
}
.confusion tbody th {
  padding: 4px 12px 4px 0; white-space: nowrap; position: sticky; left: 0; background: var(--card);
}
img { image-rendering: pixelated; display: block; width: 100%; height: auto; }
.heat { display: grid; grid-template-columns: minmax(0, 320px) minmax(0, 1fr); gap: 24px; }
.heat > figure > img { border-radius: 8px; margin-bottom: 6px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); gap: 12px; align-content: start; }
.tiles img { border-radius: 6px; }
.tiles figcaption { font-size: .8rem; line-height: 1.3; margin-top: 4px; overflow-wrap: anywhere; }
.tiles .soft { white-space: nowrap; }
.was { color: rgb(var(--bad)); }
.bars { width: 100%; }
.bars th { padding: 3px 12px 3px 0; overflow-wrap: break-word; max-width: 40vw; min-width: 84px; }
.bars td { padding: 3px 0; }
.bars td:last-child { width: 62%; }
.bars td + td { padding-left: 12px; }
.bar { height: 14px; border-radius: 3px; background: rgb(var(--good) / .8); min-width: 2px; }
.plain th, .plain td { padding: 5px 16px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.plain td { overflow-wrap: anywhere; }
.plain.rows th, .plain.rows td { white-space: nowrap; }
.bars .number { text-align: right; white-space: nowrap; color: var(--soft); }
footer { margin: 0 4px; }
@media (max-width: 640px) {
  main { padding-top: 18px; }
  section { padding: 16px 14px; }
  .heat { grid-template-columns: minmax(0, 1fr); }
  .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .figures dd { font-size: 1.25rem; }
  .confusion { font-size: .68rem; width: 100%; }
  .confusion td { min-width: 0; padding: 5px 1px; border-width: 1px; text-align: center; }
  .confusion thead th { writing-mode: vertical-rl; text-align: left; padding: 2px 0; max-width: none; font-size: .68rem; }
  .confusion tbody th { padding-right: 5px; }
  .confusion td.recall, .confusion thead th:last-child { display: none; }
  .bars td:last-child { width: 38%; }
  svg text { font-size: 17px; }
}
)";
}

}  // namespace gbdt
