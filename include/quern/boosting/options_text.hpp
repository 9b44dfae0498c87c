// SPDX-License-Identifier: Apache-2.0

/// \file
/// Options by name and text, as command lines, files and XGBoost's parameter maps have them.

#ifndef QUERN_BOOSTING_OPTIONS_TEXT_HPP
#define QUERN_BOOSTING_OPTIONS_TEXT_HPP

#include "quern/boosting/options.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <algorithm>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {
namespace detail {

[[noreturn]] inline void bad_option_text(std::string_view name, std::string_view expected,
                                         std::string_view got) {
  throw ValueError(
      error_text("quern::boosting::set_option", name, expected, "'" + std::string(got) + "'"));
}

[[nodiscard]] inline std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

template <class T>
requires(std::integral<T> || std::floating_point<T>) void parse_option(std::string_view name,
                                                                       std::string_view text,
                                                                       T& to) {
  T value{};
  std::string_view digits = trimmed(text);
  if (!digits.empty() && digits.front() == '+') digits.remove_prefix(1);
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (result.ec != std::errc() || result.ptr != digits.data() + digits.size() || digits.empty())
    bad_option_text(name, std::integral<T> ? "a whole number in range" : "a number", text);
  to = value;
}
inline void parse_option(std::string_view name, std::string_view text, BoosterDefault& to) {
  double value = 0;
  parse_option(name, text, value);
  to = value;
}
inline void parse_option(std::string_view name, std::string_view text, bool& to) {
  const std::string_view t = trimmed(text);
  if (t != "1" && t != "0" && t != "true" && t != "false" && t != "True" && t != "False")
    bad_option_text(name, "0, 1, true or false", text);
  to = t == "1" || t == "true" || t == "True";
}
inline void parse_option(std::string_view, std::string_view text, std::string& to) {
  to = trimmed(text);
}

/// Parts between commas; one pair of brackets around them is taken off.
[[nodiscard]] inline std::vector<std::string_view> list_parts(std::string_view text) {
  text = trimmed(text);
  if (text.size() >= 2 &&
      ((text.front() == '(' && text.back() == ')') || (text.front() == '[' && text.back() == ']')))
    text = trimmed(text.substr(1, text.size() - 2));
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    parts.push_back(trimmed(text.substr(0, comma)));
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (trimmed(text).empty()) break;  // "(1,)"
  }
  return parts;
}

template <class T>
void parse_option(std::string_view name, std::string_view text, std::vector<T>& to) {
  std::vector<T> values;
  for (const std::string_view part : list_parts(text)) {
    T value{};
    parse_option(name, part, value);
    values.push_back(std::move(value));
  }
  to = std::move(values);
}
/// "[[0, 1], [2, 3, 4]]"
inline void parse_option(std::string_view name, std::string_view text,
                         std::vector<std::vector<std::int32_t>>& to) {
  std::string_view rest = trimmed(text);
  if (rest.size() < 2 || rest.front() != '[' || rest.back() != ']')
    bad_option_text(name, "lists in a list, as [[0, 1], [2, 3]]", text);
  rest = rest.substr(1, rest.size() - 2);
  std::vector<std::vector<std::int32_t>> groups;
  for (std::size_t open = rest.find('['); open != std::string_view::npos; open = rest.find('[')) {
    const std::size_t close = rest.find(']', open);
    if (close == std::string_view::npos) bad_option_text(name, "a closing ]", text);
    parse_option(name, rest.substr(open, close - open + 1), groups.emplace_back());
    rest.remove_prefix(close + 1);
  }
  to = std::move(groups);
}
template <class T>
void parse_option(std::string_view name, std::string_view text, std::optional<T>& to) {
  T value{};
  parse_option(name, text, value);
  to = value;
}

/// One of several words.
template <class Enum>
void parse_choice(std::string_view name, std::string_view text,
                  std::initializer_list<std::pair<std::string_view, Enum>> choices, Enum& to) {
  std::string expected;
  for (const auto& [word, value] : choices) {
    if (trimmed(text) == word) {
      to = value;
      return;
    }
    expected += (expected.empty() ? "" : ", ") + std::string(word);
  }
  bad_option_text(name, expected, text);
}

using OptionSetter = void (*)(Options&, std::string_view name, std::string_view text);

template <auto Member>
void set_member(Options& options, std::string_view name, std::string_view text) {
  parse_option(name, text, options.*Member);
}

inline void set_grow_policy(Options& o, std::string_view name, std::string_view text) {
  using P = tree::GrowPolicy;
  parse_choice<P>(
      name, text,
      {{"depthwise", P::depthwise}, {"lossguide", P::lossguide}, {"symmetric", P::symmetric}},
      o.grow_policy);
}
inline void set_softmax_hessian(Options& o, std::string_view name, std::string_view text) {
  using H = SoftmaxHessian;
  parse_choice<H>(name, text,
                  {{"doubled", H::doubled}, {"exact", H::exact}, {"friedman", H::friedman}},
                  o.softmax_hessian);
}
inline void set_precision(Options& o, std::string_view name, std::string_view text) {
  using P = tree::HistogramPrecision;
  parse_choice<P>(name, text,
                  {{"automatic", P::automatic}, {"packed", P::packed}, {"full", P::full}},
                  o.histogram_precision);
}
inline void set_distribution(Options& o, std::string_view name, std::string_view text) {
  using D = AftDistribution;
  parse_choice<D>(name, text,
                  {{"normal", D::normal}, {"logistic", D::logistic}, {"extreme", D::extreme}},
                  o.aft_loss_distribution);
}
inline void set_pairs(Options& o, std::string_view name, std::string_view text) {
  using P = LambdarankPairs;
  parse_choice<P>(name, text, {{"topk", P::topk}, {"mean", P::mean}}, o.lambdarank_pair_method);
}
inline void set_sampling(Options& o, std::string_view, std::string_view text) {
  o.sampling_method = trimmed(text) == "bagging" ? "uniform" : std::string(trimmed(text));
}

/// All names that options go by, with their other names.
[[nodiscard]] inline const std::map<std::string_view, OptionSetter>& option_setters() {
  using O = Options;
  static const std::map<std::string_view, OptionSetter> setters = {
      {"objective", set_member<&O::objective>},
      {"booster", set_member<&O::booster>},
      {"num_class", set_member<&O::num_class>},
      {"huber_slope", set_member<&O::huber_slope>},
      {"quantile_alpha", set_member<&O::quantile_alpha>},
      {"tweedie_variance_power", set_member<&O::tweedie_variance_power>},
      {"aft_loss_distribution", set_distribution},
      {"aft_loss_distribution_scale", set_member<&O::aft_loss_distribution_scale>},
      {"lambdarank_pair_method", set_pairs},
      {"lambdarank_num_pair_per_sample", set_member<&O::lambdarank_num_pair_per_sample>},
      {"lambdarank_normalization", set_member<&O::lambdarank_normalization>},
      {"lambdarank_score_normalization", set_member<&O::lambdarank_score_normalization>},
      {"lambdarank_unbiased", set_member<&O::lambdarank_unbiased>},
      {"lambdarank_bias_norm", set_member<&O::lambdarank_bias_norm>},
      {"ndcg_exp_gain", set_member<&O::ndcg_exp_gain>},
      {"class_weight", set_member<&O::class_weight>},
      {"num_round", set_member<&O::num_round>},
      {"learning_rate", set_member<&O::learning_rate>},
      {"max_depth", set_member<&O::max_depth>},
      {"max_leaves", set_member<&O::max_leaves>},
      {"tree_method", set_member<&O::tree_method>},
      {"grow_policy", set_grow_policy},
      {"min_child_weight", set_member<&O::min_child_weight>},
      {"gamma", set_member<&O::gamma>},
      {"reg_lambda", set_member<&O::reg_lambda>},
      {"reg_alpha", set_member<&O::reg_alpha>},
      {"max_delta_step", set_member<&O::max_delta_step>},
      {"gradient_order", set_member<&O::gradient_order>},
      {"num_parallel_tree", set_member<&O::num_parallel_tree>},
      {"subsample", set_member<&O::subsample>},
      {"sampling_method", set_sampling},
      {"top_rate", set_member<&O::top_rate>},
      {"other_rate", set_member<&O::other_rate>},
      {"colsample_bytree", set_member<&O::colsample_bytree>},
      {"colsample_bylevel", set_member<&O::colsample_bylevel>},
      {"colsample_bynode", set_member<&O::colsample_bynode>},
      {"max_cat_to_onehot", set_member<&O::max_cat_to_onehot>},
      {"max_cat_threshold", set_member<&O::max_cat_threshold>},
      {"max_bin", set_member<&O::max_bin>},
      {"monotone_constraints", set_member<&O::monotone_constraints>},
      {"interaction_constraints", set_member<&O::interaction_constraints>},
      {"linear_tree", set_member<&O::linear_tree>},
      {"linear_lambda", set_member<&O::linear_lambda>},
      {"rate_drop", set_member<&O::rate_drop>},
      {"skip_drop", set_member<&O::skip_drop>},
      {"one_drop", set_member<&O::one_drop>},
      {"sample_type", set_member<&O::sample_type>},
      {"normalize_type", set_member<&O::normalize_type>},
      {"feature_selector", set_member<&O::feature_selector>},
      {"top_k", set_member<&O::top_k>},
      {"scale_pos_weight", set_member<&O::scale_pos_weight>},
      {"base_score", set_member<&O::base_score>},
      {"eval_metric", set_member<&O::eval_metric>},
      {"early_stopping_rounds", set_member<&O::early_stopping_rounds>},
      {"softmax_hessian", set_softmax_hessian},
      {"histogram_precision", set_precision},
      {"seed", set_member<&O::seed>},
      {"nthread", set_member<&O::nthread>},
  };
  return setters;
}

/// Other names that XGBoost's and LightGBM's users know.
[[nodiscard]] inline const std::map<std::string_view, std::string_view>& option_aliases() {
  static const std::map<std::string_view, std::string_view> aliases = {
      {"eta", "learning_rate"},
      {"shrinkage_rate", "learning_rate"},
      {"lambda", "reg_lambda"},
      {"lambda_l2", "reg_lambda"},
      {"alpha", "reg_alpha"},
      {"lambda_l1", "reg_alpha"},
      {"min_split_loss", "gamma"},
      {"min_gain_to_split", "gamma"},
      {"min_sum_hessian_in_leaf", "min_child_weight"},
      {"n_estimators", "num_round"},
      {"num_boost_round", "num_round"},
      {"num_iterations", "num_round"},
      {"num_leaves", "max_leaves"},
      {"bagging_fraction", "subsample"},
      {"feature_fraction", "colsample_bytree"},
      {"data_sample_strategy", "sampling_method"},
      {"drop_rate", "rate_drop"},
      {"random_state", "seed"},
      {"n_jobs", "nthread"},
      {"num_threads", "nthread"},
      {"metric", "eval_metric"},
      {"early_stopping_round", "early_stopping_rounds"},
  };
  return aliases;
}

/// Least number of letters to insert, delete or change.
[[nodiscard]] inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = (std::min)({changed, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

[[nodiscard]] inline std::string nearest_option(std::string_view name) {
  std::string_view best;
  std::size_t least = name.size() + 64;
  const auto look = [&](std::string_view candidate) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance >= least) return;
    least = distance;
    best = candidate;
  };
  for (const auto& [known, setter] : option_setters()) look(known);
  for (const auto& [alias, known] : option_aliases()) look(alias);
  return std::string(best);
}

/// What to say of a name that is no option.
[[nodiscard]] inline std::string instead_of_option(std::string_view name) {
  static const std::map<std::string_view, std::string_view> reasons = {
      {"device", "none: training is on processors"},
      {"updater", "tree_method or booster: updaters have no names here"},
      {"multi_strategy", "none: each output has trees of its own"},
      {"process_type", "none: trees of a model are not refreshed"},
      {"max_cached_hist_node", "none: histograms are kept as they are needed"},
      {"enable_categorical", "none: categories are marked in Dataset::feature_kinds"},
  };
  const auto known = reasons.find(name);
  return known != reasons.end() ? std::string(known->second)
                                : "a name such as '" + nearest_option(name) + "'";
}

[[nodiscard]] inline std::string find_option(const char* function, std::string_view name) {
  const auto alias = option_aliases().find(name);
  const std::string_view real = alias == option_aliases().end() ? name : alias->second;
  if (option_setters().contains(real)) return std::string(real);
  throw ValueError(
      error_text(function, "option", instead_of_option(name), "'" + std::string(name) + "'"));
}

}  // namespace detail

/// The name of an option, whatever alias it is called by ("eta" is learning_rate); ValueError with
/// the nearest name where there is none.
[[nodiscard]] inline std::string option_name(std::string_view name) {
  return detail::find_option("quern::boosting::option_name", name);
}

/// Names of all options that texts can set, in alphabetical order.
[[nodiscard]] inline std::vector<std::string> option_names() {
  std::vector<std::string> names;
  for (const auto& [name, setter] : detail::option_setters()) names.emplace_back(name);
  return names;
}

/// Sets one option from text: numbers, true or false, words, lists as "(1, 0, -1)" or "0.1,0.9",
/// lists of lists as "[[0, 1], [2, 3]]". ValueError for a name or a text that is none; ranges are
/// checked by Options::check.
inline void set_option(Options& options, std::string_view name, std::string_view text) {
  const std::string real = detail::find_option("quern::boosting::set_option", name);
  detail::option_setters().at(real)(options, name, text);
}

/// Options from names and texts over \p defaults, settled (Options::settled).
///
///     auto options = options_from({{"objective", "binary:logistic"}, {"eta", "0.1"}});
[[nodiscard]] inline Options options_from(const std::map<std::string, std::string>& texts,
                                          Options defaults = {}) {
  for (const auto& [name, text] : texts) set_option(defaults, name, text);
  return defaults.settled();
}

/// "name=value" as its two parts; ValueError without a "=".
[[nodiscard]] inline std::pair<std::string, std::string> split_option(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos) detail::bad_option_text("option", "name=value", text);
  return {std::string(detail::trimmed(text.substr(0, equals))),
          std::string(detail::trimmed(text.substr(equals + 1)))};
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_OPTIONS_TEXT_HPP
