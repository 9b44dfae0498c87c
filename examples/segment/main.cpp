// SPDX-License-Identifier: Apache-2.0
//
// Which pixel shows what: U-Nets and FCNs on scenes put together of Fashion-MNIST's clothes, with
// interpolated and with learned upsampling. Prints a table and writes a page.

#include "../common/page.hpp"
#include "quern/core/parallel.hpp"
#include "segment.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>

namespace {

using namespace segment;

void draw_progress(const std::string& what, Index done, Index total, double loss) {
  constexpr Index width = 30;
  const Index filled = total > 0 ? done * width / total : 0;
  std::string bar(static_cast<std::size_t>(filled), '#');
  bar.resize(static_cast<std::size_t>(width), '.');
  std::fprintf(stderr, "\r%-30s [%s] %ld/%ld loss %.4f", what.c_str(), bar.c_str(),
               static_cast<long>(done), static_cast<long>(total), loss);
  if (done == total) std::fprintf(stderr, "\n");
}

page::Section table_of(const std::vector<Result>& results) {
  page::Section section{
      .title = "Interpolation beside learned upsampling",
      .text =
          "mIoU: mean over the eleven classes of intersection over union, on scenes of pictures "
          "that were not trained on. Times are of this machine, with all of its threads."};
  section.table.head = {"network", "upsampling", "learned",    "weights",
                        "mIoU",    "pixels",     "s an epoch", "ms an image"};
  for (const Result& r : results) {
    section.table.rows.push_back(
        {r.network, r.kind, is_learned(r.kind) ? "yes" : "no", std::to_string(r.weights),
         page::number(r.miou, "%.4f"), page::number(100 * r.accuracy, "%.2f %%"),
         page::number(r.epoch_seconds, "%.1f"), page::number(r.image_milliseconds, "%.2f")});
  }
  return section;
}

page::Section curves_of(const std::vector<Result>& results, const Scenes& test) {
  page::Section section{.title = "How it learned, and what it sees",
                        .text =
                            "From the left: the scene, its mask, and each network in the "
                            "table's order."};
  page::Chart chart{.title = "Mean loss of each epoch", .x_name = "epoch", .y_name = "loss"};
  for (const Result& r : results) {
    page::Series line{.name = r.network + ", " + r.kind, .x = {}, .y = r.losses};
    for (std::size_t e = 0; e < r.losses.size(); ++e) line.x.push_back(static_cast<double>(e + 1));
    chart.series.push_back(line);
  }
  section.charts.push_back(chart);
  section.pictures.push_back({"Test scenes", sample_sheet(test, results, 8)});
  return section;
}

int run(int argc, char** argv) {
  CLI::App app("U-Nets and FCNs on scenes of clothes, with each kind of upsampling.");
  std::string data = "/usr/share/datasets/fashion-mnist", html = "segment.html";
  std::vector<std::string> kinds = {"nearest", "bilinear", "transposed", "shuffle"};
  std::vector<std::string> networks = {"U-Net", "FCN"};
  TrainingOptions training;
  Index scenes = 1500, tests = 300, width = 16;
  int threads = 0;
  app.add_option("--data", data, "folder with Fashion-MNIST's four files")->capture_default_str();
  app.add_option("--html", html, "page to write")->capture_default_str();
  app.add_option("--upsampling", kinds, "kinds to compare")
      ->capture_default_str()
      ->check(CLI::IsMember(upsampling_kinds()));
  app.add_option("--network", networks, "networks to train")
      ->capture_default_str()
      ->check(CLI::IsMember({"U-Net", "FCN"}));
  app.add_option("--scenes", scenes, "scenes to train on")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000000));
  app.add_option("--tests", tests, "scenes to judge by")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000000));
  app.add_option("--epochs", training.epochs, "passes over the scenes")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  app.add_option("--batch", training.batch, "scenes a step")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--width", width, "channels of the first level")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--lr", training.lr, "AdamW's rate at first")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--seed", training.seed, "of scenes, weights and order")->capture_default_str();
  app.add_option("--threads", threads, "0: all")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  quern::set_default_threads(threads);

  const Scenes train_scenes = make_scenes(data, "train", scenes, training.seed);
  const Scenes test_scenes = make_scenes(data, "t10k", tests, training.seed);
  std::vector<Result> results;
  for (const std::string& network : networks) {
    for (const std::string& kind : kinds) {
      results.push_back(segment::train(network, kind, width, train_scenes, test_scenes, training,
                                       [&](Index done, Index total, double loss) {
                                         draw_progress(network + ", " + kind, done, total, loss);
                                       }));
    }
  }
  const page::Section table = table_of(results);
  page::print(table);
  page::write(html, page::html("Which pixel shows what", {table, curves_of(results, test_scenes)}));
  std::printf("open %s\n", html.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "segment: %s\n", e.what());
    return 1;
  }
}
