// SPDX-License-Identifier: Apache-2.0

#include "report.hpp"

#include "html.hpp"
#include "terminal.hpp"

#include "quern/boosting/importance.hpp"
#include "quern/core/file.hpp"
#include "quern/version.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

namespace gbdt {
namespace {

using quern::boosting::Importance;

constexpr std::size_t most_confusion_classes = 30;
constexpr std::size_t wrong_pictures = 48;
constexpr std::size_t wrong_rows = 15;
constexpr std::size_t shown_features = 20;
constexpr std::size_t effect_rows = 2000;

std::string file_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

std::string title_of(const Report& r) {
  if (!r.settings.title.empty()) return r.settings.title;
  return "Boosted trees on " + file_name(r.settings.data.path);
}

std::string feature_name(const Report& r, std::size_t f) {
  const auto& names = r.run.model.feature_names;
  return f < names.size() ? names[f] : "feature " + std::to_string(f);
}

bool has_pictures(const Report& r) {
  const Meaning& m = r.train.meaning;
  return m.image_height > 0 && m.image_width > 0 &&
         std::int64_t{m.image_height} * m.image_width == r.run.model.features;
}

std::string figure(const char* name, const std::string& value, const std::string& more,
                   const char* kind = "") {
  return std::string("<div") + kind + "><dt>" + name + "</dt><dd>" + escape(value) + "<small>" +
         escape(more) + "</small></dd></div>";
}

std::string figures(const Report& r) {
  const TrainedRun& run = r.run;
  const auto rounds = static_cast<double>(run.model.rounds());
  const double rows = static_cast<double>(r.train.rows()) * rounds / run.round_seconds;
  const char* of = r.has_test ? "test rows" : "training rows";
  std::string html = "<dl class=\"figures\">";
  const auto& [first, value] = r.scores.metrics.front();
  html += first == "accuracy" ? figure(r.has_test ? "Test accuracy" : "Training accuracy",
                                       format("%.2f %%", 100 * value),
                                       count_text(r.judged.rows()) + " " + of, " class=\"main\"")
                              : figure(escape(first).c_str(), format("%.4g", value),
                                       count_text(r.judged.rows()) + " " + of, " class=\"main\"");
  for (std::size_t i = 1; i < r.scores.metrics.size() && i < 2; ++i)
    html += figure(escape(r.scores.metrics[i].first).c_str(),
                   format("%.4g", r.scores.metrics[i].second), of);
  html += figure("Training", time_text(run.seconds),
                 format("%.0f rounds, binning %s", rounds, time_text(run.binning_seconds).c_str()));
  html += figure("Speed", count_text(std::llround(rows)), "rows × rounds a second");
  html += figure("Prediction",
                 count_text(std::llround(static_cast<double>(r.judged.rows()) / r.predict_seconds)),
                 "rows a second");
  html += figure("Model", count_text(static_cast<std::int64_t>(run.model.trees.size())) + " trees",
                 count_text(r.train.rows()) + " × " + count_text(run.model.features) + " data");
  return html + "</dl>";
}

std::string curves(const Report& r) {
  std::vector<std::string> metrics;
  for (const MetricCurve& c : r.run.curves) {
    if (std::find(metrics.begin(), metrics.end(), c.metric) == metrics.end())
      metrics.push_back(c.metric);
  }
  std::string html =
      "<section><h2>Learning curves</h2><p class=\"soft small\">By round of boosting";
  if (r.run.best_round >= 0)
    html += format("; the dashed line is the best round, %lld",
                   static_cast<long long>(r.run.best_round + 1));
  html += ".</p><div class=\"charts\">";
  for (const std::string& metric : metrics) {
    std::vector<const MetricCurve*> lines;
    for (const MetricCurve& c : r.run.curves)
      if (c.metric == metric) lines.push_back(&c);
    html += line_chart(metric, lines, r.run.best_round);
  }
  return html + "</div></section>";
}

std::string confusion_row(const std::vector<std::int64_t>& row, std::size_t i,
                          const std::string& name) {
  const std::int64_t all = std::accumulate(row.begin(), row.end(), std::int64_t{0});
  std::string html = "<tr><th scope=\"row\">" + escape(name) + "</th>";
  for (std::size_t j = 0; j < row.size(); ++j) {
    const double share = all > 0 ? static_cast<double>(row[j]) / static_cast<double>(all) : 0;
    // Errors are few: the square root lets their colours differ.
    const double alpha = i == j ? 0.12 + 0.5 * share : 0.9 * std::sqrt(share);
    const char* kind = i == j ? " class=\"right\"" : row[j] == 0 ? " class=\"zero\"" : "";
    html += format("<td%s style=\"--a:%.2f\">%s</td>", kind, row[j] == 0 ? 0 : alpha,
                   row[j] == 0 ? "·" : count_text(row[j]).c_str());
  }
  const double recall = all > 0 ? 100 * static_cast<double>(row[i]) / static_cast<double>(all) : 0;
  return html + format("<td class=\"recall\">%.1f %%</td></tr>", recall);
}

std::string confusion(const Report& r) {
  const auto& table = r.scores.confusion;
  const auto& names = r.train.meaning.classes;
  if (table.empty() || table.size() > most_confusion_classes || names.size() != table.size())
    return {};
  std::string html =
      "<section><h2>Confusion</h2><p class=\"soft small\">Rows: the true class. Columns: what was "
      "predicted. Last column: recall.</p><div class=\"wide\"><table class=\"confusion\"><thead>"
      "<tr><td></td>";
  for (const std::string& name : names) html += "<th scope=\"col\">" + escape(name) + "</th>";
  html += "<th scope=\"col\">recall</th></tr></thead><tbody>";
  for (std::size_t i = 0; i < table.size(); ++i) html += confusion_row(table[i], i, names[i]);
  return html + "</tbody></table></div></section>";
}

/// Summed gain by feature of the trees of one output; -1: of all.
std::vector<double> gains(const Report& r, std::int32_t output) {
  const auto& model = r.run.model;
  std::vector<double> total(static_cast<std::size_t>(model.features), 0.0);
  for (std::size_t t = 0; t < model.trees.size(); ++t) {
    if (output >= 0 && model.tree_outputs[t] != output) continue;
    for (const auto& n : model.trees[t].nodes)
      if (!n.is_leaf()) total[static_cast<std::size_t>(n.feature)] += n.gain;
  }
  return total;
}

std::string heat_maps(const Report& r) {
  const Meaning& m = r.train.meaning;
  const auto picture = [&](std::int32_t output, const std::string& alt) {
    return heat_image(gains(r, output), m.image_height, m.image_width, alt);
  };
  std::string html = format(
      "<section><h2>Where the model looks</h2><p class=\"soft small\">Total gain of the splits on "
      "each of the %d × %d pixels, dark to bright, on a cube-root scale.</p><div class=\"heat\">",
      m.image_height, m.image_width);
  html += "<figure>" + picture(-1, "Importance of each pixel") +
          "<figcaption class=\"small soft\">all classes</figcaption></figure>";
  html += "<div class=\"tiles\">";
  const auto outputs = static_cast<std::int32_t>(m.classes.size());
  for (std::int32_t k = 0; outputs > 2 && k < outputs && k < 30; ++k) {
    const std::string& name = m.classes[static_cast<std::size_t>(k)];
    html += "<figure>" + picture(k, "Importance of each pixel for " + name) + "<figcaption>" +
            escape(name) + "</figcaption></figure>";
  }
  return html + "</div></div></section>";
}

std::vector<std::size_t> descending(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return values[a] > values[b]; });
  return order;
}

std::string bars(const Report& r) {
  const std::vector<double> total = importance(r.run.model, Importance::total_gain);
  const std::vector<double> weight = importance(r.run.model, Importance::weight);
  const std::vector<std::size_t> order = descending(total);
  const double all = std::accumulate(total.begin(), total.end(), 0.0);
  std::string html =
      "<section><h2>Importances</h2><p class=\"soft small\">Share of the total gain of all splits, "
      "and how many splits.</p><table class=\"bars\"><tbody>";
  for (std::size_t i = 0; i < order.size() && i < shown_features; ++i) {
    const std::size_t f = order[i];
    if (weight[f] <= 0) break;
    html += "<tr><th scope=\"row\">" + escape(feature_name(r, f)) + "</th>" +
            format(
                "<td class=\"number\">%.1f %%</td><td class=\"number\">%s</td><td><div "
                "class=\"bar\" style=\"width:%.1f%%\"></div></td></tr>",
                100 * total[f] / all, count_text(std::llround(weight[f])).c_str(),
                100 * total[f] / total[order[0]]);
  }
  return html + "</tbody></table></section>";
}

/// Mean size of what each feature adds to the margins of some of the judged rows.
std::string effects(const Report& r) {
  std::vector<std::int64_t> rows(
      (std::min)(static_cast<std::size_t>(r.judged.rows()), effect_rows));
  std::iota(rows.begin(), rows.end(), std::int64_t{0});
  const Data part = take_rows(r.judged, rows);
  const auto values = shap_values(r.run.model, part.set, r.settings.options.nthread);
  std::vector<double> mean(static_cast<std::size_t>(r.run.model.features), 0.0);
  for (std::int64_t i = 0; i < values.extent(0); ++i) {
    for (std::int64_t k = 0; k < values.extent(1); ++k) {
      for (std::size_t f = 0; f < mean.size(); ++f)
        mean[f] += std::fabs(values(i, k, static_cast<std::int64_t>(f))) /
                   static_cast<double>(rows.size());
    }
  }
  const std::vector<std::size_t> order = descending(mean);
  std::string html =
      "<section><h2>Effects</h2><p class=\"soft small\">Mean size of each "
      "feature's Shapley values, in margins, over " +
      count_text(static_cast<std::int64_t>(rows.size())) +
      " rows.</p><table class=\"bars\"><tbody>";
  for (std::size_t i = 0; i < order.size() && i < shown_features; ++i) {
    const std::size_t f = order[i];
    if (!(mean[f] > 0)) break;
    html += "<tr><th scope=\"row\">" + escape(feature_name(r, f)) + "</th>" +
            format(
                "<td class=\"number\">%.3g</td><td></td><td><div class=\"bar\" "
                "style=\"width:%.1f%%\"></div></td></tr>",
                mean[f], 100 * mean[f] / mean[order[0]]);
  }
  return html + "</tbody></table></section>";
}

/// A row that was judged wrongly, and how sure the model was.
struct Miss {
  std::int64_t row = 0;
  std::size_t truth = 0;
  std::size_t predicted = 0;
  double sure = 0;
};

/// The surest errors first.
std::vector<Miss> misses(const Report& r) {
  std::vector<Miss> found;
  const auto k = r.predictions.extent(1);
  for (std::size_t i = 0; i < r.scores.predicted.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    const auto predicted = static_cast<std::size_t>(r.scores.predicted[i]);
    const auto truth = static_cast<std::size_t>(r.judged.set.labels[i]);
    if (predicted == truth) continue;
    const auto p = static_cast<double>(
        k > 1 ? r.predictions(row, static_cast<std::int64_t>(predicted)) : r.predictions(row, 0));
    found.push_back({row, truth, predicted, k == 1 && predicted == 0 ? 1 - p : p});
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const Miss& a, const Miss& b) { return a.sure > b.sure; });
  return found;
}

std::string miss_pictures(const Report& r, const std::vector<Miss>& found) {
  const Meaning& m = r.train.meaning;
  std::string html = "<div class=\"tiles\">";
  for (std::size_t i = 0; i < found.size() && i < wrong_pictures; ++i) {
    const Miss& miss = found[i];
    const std::vector<float> pixels = row_of(r.judged.set, miss.row);
    const float white = (std::max)(1.0f, *std::max_element(pixels.begin(), pixels.end()));
    const std::string& truth = m.classes[miss.truth];
    html += "<figure>" + grey_image(pixels, m.image_height, m.image_width, white, truth) +
            "<figcaption>" + escape(truth) + "<br><span class=\"was\">" +
            escape(m.classes[miss.predicted]) +
            format("</span> <span class=\"soft\">%.0f %%</span></figcaption></figure>",
                   100 * miss.sure);
  }
  return html + "</div>";
}

std::string cell_text(const Report& r, std::size_t f, float value) {
  if (!(value == value)) return "–";
  const auto& categories = r.run.model.categories;
  const auto code = static_cast<std::size_t>((std::max)(value, 0.0f));
  if (f < categories.size() && code < categories[f].size()) return categories[f][code];
  return format("%.5g", static_cast<double>(value));
}

std::string miss_table(const Report& r, const std::vector<Miss>& found) {
  std::vector<std::size_t> top = descending(importance(r.run.model, Importance::total_gain));
  top.resize((std::min)(top.size(), std::size_t{6}));
  std::string html =
      "<div class=\"wide\"><table class=\"plain rows\"><thead><tr><th>row</th><th>true</th>"
      "<th>predicted</th>";
  for (const std::size_t f : top) html += "<th>" + escape(feature_name(r, f)) + "</th>";
  html += "</tr></thead><tbody>";
  for (std::size_t i = 0; i < found.size() && i < wrong_rows; ++i) {
    const Miss& miss = found[i];
    const std::vector<float> values = row_of(r.judged.set, miss.row);
    const auto& classes = r.train.meaning.classes;
    html += "<tr><td>" + count_text(miss.row) + "</td><td>" + escape(classes[miss.truth]) +
            "</td><td><span class=\"was\">" + escape(classes[miss.predicted]) +
            format("</span> %.1f %%</td>", 100 * miss.sure);
    for (const std::size_t f : top) html += "<td>" + escape(cell_text(r, f, values[f])) + "</td>";
    html += "</tr>";
  }
  return html + "</tbody></table></div>";
}

std::string wrong(const Report& r) {
  const std::vector<Miss> found = misses(r);
  if (found.empty()) return {};
  std::string html = "<section><h2>What it got wrong</h2><p class=\"soft small\">" +
                     count_text(static_cast<std::int64_t>(found.size())) + " of " +
                     count_text(r.judged.rows()) +
                     " rows; here those of which the model was surest: the true class, then "
                     "<span class=\"was\">what it said</span> and with which probability.</p>";
  html += has_pictures(r) ? miss_pictures(r, found) : miss_table(r, found);
  return html + "</section>";
}

std::string setting(const char* name, const std::string& value) {
  return std::string("<tr><th scope=\"row\">") + name + "</th><td>" + escape(value) + "</td></tr>";
}

std::string settings_table(const Report& r) {
  const quern::boosting::Options& o = r.settings.options;
  std::string html = "<section><h2>How it was made</h2><table class=\"plain\"><tbody>";
  html += setting("data", file_name(r.settings.data.path));
  if (r.has_test)
    html += setting("judged by", r.settings.test.path.empty()
                                     ? format("%.0f %% of the rows", 100 * r.settings.holdout)
                                     : file_name(r.settings.test.path));
  html += setting("objective", o.objective);
  html += setting("rounds", std::to_string(r.run.model.rounds()));
  html += setting("learning_rate", format("%g", double{o.learning_rate}));
  html += setting("max_depth", std::to_string(o.max_depth));
  if (o.max_leaves > 0) html += setting("max_leaves", std::to_string(o.max_leaves));
  html += setting(
      "min_child_weight, lambda, alpha, gamma",
      format("%g, %g, %g, %g", o.min_child_weight, double{o.reg_lambda}, o.reg_alpha, o.gamma));
  html += setting("subsample, colsample by tree, level, node",
                  format("%g, %g, %g, %g", o.subsample, o.colsample_bytree, o.colsample_bylevel,
                         o.colsample_bynode));
  html += setting("max_bin", std::to_string(o.max_bin));
  html += setting("seed", std::to_string(o.seed));
  html += setting("SIMD", simd_level());
  html += setting("program", std::string("gbdt of quern ") + QUERN_VERSION);
  return html + "</tbody></table></section>";
}

}  // namespace

void write_report(const Report& r) {
  std::string body = "<p class=\"soft\">" + count_text(r.train.rows()) + " rows of " +
                     count_text(r.run.model.features) + " features";
  if (r.run.model.objective.starts_with("multi:"))
    body += format(", %d classes", r.run.model.outputs);
  body += ", " + escape(r.settings.options.objective) + "</p>\n";
  body += figures(r) + "\n" + curves(r) + "\n" + confusion(r) + "\n";
  body += (has_pictures(r) ? heat_maps(r) : bars(r) + "\n" + effects(r)) + "\n" + wrong(r) + "\n" +
          settings_table(r) + "\n";
  const std::string html = page::document(title_of(r), body, style_sheet());
  quern::write_file_atomically(r.settings.report_path,
                               std::as_bytes(std::span<const char>(html.data(), html.size())));
}

}  // namespace gbdt
