// SPDX-License-Identifier: Apache-2.0

#include "../common/page.hpp"
#include "../common/picture.hpp"

#include "model.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace vqvae {
namespace {

/// Images side by side, `across` in a row, as a picture that a page can hold.
std::string picture(const Images& images, Index across, const std::string& what) {
  const Index n = images.shape()[0], h = images.shape()[1], w = images.shape()[2];
  const Index down = (n + across - 1) / across, wide = across * (w + 2), high = down * (h + 2);
  std::vector<unsigned char> bytes(static_cast<std::size_t>(wide * high), 255);
  for (Index i = 0; i < n; ++i) {
    for (Index p = 0; p < h * w; ++p) {
      const float value = (std::clamp)(images[i * h * w + p], 0.0F, 1.0F);
      const Index y = i / across * (h + 2) + 1 + p / w, x = i % across * (w + 2) + 1 + p % w;
      bytes[static_cast<std::size_t>(y * wide + x)] =
          static_cast<unsigned char>(std::lround(255 * (1 - value)));
    }
  }
  return "<img class=\"sheet\" alt=\"" + page::escape(what) + "\" src=\"" +
         page::png(bytes, high, wide, 1) + "\">";
}

std::string section(const std::string& title, const std::string& text, const std::string& body) {
  return "<section><h2>" + page::escape(title) + "</h2><p>" + page::escape(text) + "</p>" + body +
         "</section>\n";
}

std::string percent(double share) { return page::number(100 * share, "%.1f %%"); }

page::Section figures(const Findings& f) {
  const double codes = static_cast<double>(f.grid);
  page::Section s;
  s.title = "What discreteness costs";
  s.text =
      "The same network with and without its quantiser, same training. Bits are those of an "
      "image's "
      "latent: codes packed to bits, codes as the prior would compress them, and 32-bit numbers.";
  s.table.head = {"", "test MSE", "bits an image", "training"};
  const std::string seconds = page::number(f.seconds, "%.0f s");
  s.table.rows.push_back({"VQ-VAE, packed codes", page::number(f.mse, "%.5f"),
                          page::number(codes * f.bits_a_code, "%.0f"), seconds});
  s.table.rows.push_back({"VQ-VAE, coded by the prior", page::number(f.mse, "%.5f"),
                          page::number(codes * f.prior_bits_a_code, "%.0f"),
                          page::number(f.prior_seconds, "+ %.0f s")});
  s.table.rows.push_back({"without the quantiser", page::number(f.baseline_mse, "%.5f"),
                          page::number(codes * static_cast<double>(f.dim) * 32, "%.0f"),
                          page::number(f.baseline_seconds, "%.0f s")});
  s.charts.push_back({.title = "VQ-VAE: loss of the epoch so far",
                      .x_name = "step",
                      .y_name = "loss",
                      .log_y = true,
                      .series = {{"loss", f.steps, f.losses}}});
  s.charts.push_back({.title = "Perplexity of the codes of a batch",
                      .x_name = "step",
                      .y_name = "codes",
                      .series = {{"perplexity", f.steps, f.perplexities}}});
  return s;
}

page::Section judged(const Findings& f) {
  page::Section s;
  s.title = "Do the samples look like clothes?";
  s.text =
      "A convolutional network trained on real pictures says which class it sees. Beside its "
      "figure "
      "on real test pictures: how often it sees the class that a sample was asked for.";
  s.table.head = {"pictures", "right class"};
  s.table.rows = {{"real test pictures", percent(f.real)},
                  {"their reconstructions", percent(f.reconstructed)},
                  {"samples, temperature 1", percent(f.sampled)},
                  {"samples, guided", percent(f.sampled_guided)}};
  for (std::size_t c = 0; c < f.sampled_by_class.size(); ++c) {
    s.table.rows.push_back(
        {std::string("samples: ") + class_names[c], percent(f.sampled_by_class[c])});
  }
  s.charts.push_back({.title = "Prior: nats a code",
                      .x_name = "step",
                      .y_name = "nats",
                      .series = {{"nats", f.prior_steps, f.prior_losses}}});
  return s;
}

page::Section usage(const Findings& f) {
  page::Section s;
  s.title = "Codebook";
  s.text = std::to_string(f.used) + " of " + std::to_string(f.codes) +
           " codes in use on the test pictures, perplexity " + page::number(f.perplexity, "%.0f") +
           ".";
  std::vector<std::int64_t> sorted = f.counts;
  std::sort(sorted.rbegin(), sorted.rend());
  page::Series line{"uses", {}, {}};
  for (std::size_t k = 0; k < sorted.size(); ++k) {
    line.x.push_back(static_cast<double>(k + 1));
    line.y.push_back(static_cast<double>(sorted[k]));
  }
  s.charts.push_back({.title = "Codes by how often they are used",
                      .x_name = "rank",
                      .y_name = "uses",
                      .log_y = true,
                      .series = {line}});
  return s;
}

}  // namespace

std::string page(const Findings& f) {
  const std::string pictures =
      section("Originals, reconstructions, and the network without quantiser",
              "Test pictures; three rows each.",
              picture(f.originals, 20, "originals") + picture(f.reconstructions, 20, "VQ-VAE") +
                  picture(f.baseline, 20, "without quantiser")) +
      section("Samples", "Drawn from the prior, a row a class, temperature 1.",
              picture(f.samples, 20, "samples")) +
      section("Samples, guided",
              "The same, logits moved " + page::number(f.guidance, "%.1f") +
                  " times further from those of no class.",
              picture(f.guided, 20, "guided samples"));
  return page::document("A VQ-VAE on Fashion-MNIST",
                        page::body({figures(f), usage(f), judged(f)}) + pictures);
}

}  // namespace vqvae
