// SPDX-License-Identifier: BSD-3-Clause
// Runs a simulation without Python:
//
//   run_simulation MODEL INPUT OUTPUT
//
// MODEL is a file of sim.export_torchscript, INPUT a tensor that torch.save
// wrote, or a tuple of them; OUTPUT gets what the model returns, for
// torch.load. The program calls no function of libaimetpp: linking it registers
// the ops that the model calls.
#include <torch/script.h>

#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

std::vector<char> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const std::string& path, const std::vector<char>& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

void run(const std::string& model_path, const std::string& input_path,
         const std::string& output_path) {
  torch::jit::Module model = torch::jit::load(model_path);
  const torch::IValue input = torch::jit::pickle_load(read_file(input_path));
  std::vector<torch::IValue> arguments{input};
  if (input.isTuple()) arguments = input.toTuple()->elements().vec();

  const torch::NoGradGuard no_grad;
  write_file(output_path, torch::jit::pickle_save(model.forward(arguments)));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: run_simulation MODEL INPUT OUTPUT\n";
    return 2;
  }
  try {
    run(argv[1], argv[2], argv[3]);
  } catch (const std::exception& error) {
    std::cerr << "run_simulation: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
