// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/budget_solver.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <queue>
#include <utility>

namespace aimetpp::mixed {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kTolerance = 1e-9;  // relative

std::vector<std::vector<int>> scopes_of(const BudgetProblem& problem) {
  std::vector<std::vector<int>> scopes;
  for (const BudgetTerm& term : problem.terms) scopes.push_back(term.scope);
  for (std::size_t v = 0; v < problem.domain_sizes.size(); ++v) {
    scopes.push_back({static_cast<int>(v)});  // which labels a node allows
  }
  return scopes;
}

std::size_t index_in(const BudgetProblem& problem, const BudgetTerm& term,
                     const std::vector<int>& labels) {
  std::size_t index = 0;
  for (const int v : term.scope) {
    index = index * static_cast<std::size_t>(problem.domain_sizes[v]) +
            static_cast<std::size_t>(labels[v]);
  }
  return index;
}

// Spread of the values that are not infinite.
double spread(const Table& table) {
  double low = kInf;
  double high = -kInf;
  for (const double value : table) {
    if (value == kInf) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  return high > low ? high - low : 0;
}

}  // namespace

// One solve: an incumbent, open nodes, and what they share.
class BudgetSolver::Search {
 public:
  Search(const BudgetSolver& solver, double budget)
      : solver_(solver),
        problem_(solver.problem_),
        budget_(budget),
        tables_(problem_.terms.size()) {
    for (const BudgetTerm& term : problem_.terms) {
      cost_spread_ += spread(term.cost);
      load_spread_ += spread(term.load);
    }
    slack_ = kTolerance * (1 + load_spread_);
  }

  BudgetSolution run();

 private:
  // Labels that a node forbids are infinite.
  using Allowed = std::vector<Table>;
  struct Point {
    std::vector<int> labels;
    double cost = kInf;
    double load = kInf;
  };
  struct Node {
    Allowed allowed;
    double bound = -kInf;
    double price = 0;
    Point below;  // within the budget
    Point above;  // cheaper, but not within it
  };
  struct Later {
    bool operator()(const Node& a, const Node& b) const {
      return a.bound > b.bound;
    }
  };

  double priced_minimum(double cost_weight, double load_weight,
                        const Allowed& allowed, Point* point);
  bool relax(Node* node);
  void offer(const Point& point);
  void improve(Point point);
  void forbid_hopeless_labels(Node* node);
  [[nodiscard]] int branching_variable(const Node& node) const;
  [[nodiscard]] bool hopeless(double bound) const {
    return bound >= best_.cost - kTolerance * (1 + cost_spread_);
  }

  const BudgetSolver& solver_;
  const BudgetProblem& problem_;
  const double budget_;
  double slack_ = 0;
  double cost_spread_ = 0;
  double load_spread_ = 0;
  std::vector<Table> tables_;
  Point best_;
};

// Minimizes cost_weight * cost + load_weight * load.
double BudgetSolver::Search::priced_minimum(double cost_weight,
                                            double load_weight,
                                            const Allowed& allowed,
                                            Point* point) {
  tables_.resize(problem_.terms.size());
  for (std::size_t t = 0; t < problem_.terms.size(); ++t) {
    const BudgetTerm& term = problem_.terms[t];
    tables_[t].resize(term.cost.size());
    for (std::size_t i = 0; i < term.cost.size(); ++i) {
      const double cost = term.cost[i];
      tables_[t][i] =
          cost == kInf ? kInf : cost_weight * cost + load_weight * term.load[i];
    }
  }
  tables_.insert(tables_.end(), allowed.begin(), allowed.end());
  const double value = solver_.elimination_.minimize(tables_, &point->labels);
  point->cost = solver_.cost_of(point->labels);
  point->load = solver_.load_of(point->labels);
  return value;
}

void BudgetSolver::Search::offer(const Point& point) {
  if (point.load <= budget_ + slack_ && point.cost < best_.cost) best_ = point;
}

// Single changes that save cost within the budget.
void BudgetSolver::Search::improve(Point point) {
  if (point.cost == kInf) return;
  for (bool better = true; better;) {
    better = false;
    for (std::size_t v = 0; v < point.labels.size(); ++v) {
      for (int label = 0; label < problem_.domain_sizes[v]; ++label) {
        Point other = point;
        other.labels[v] = label;
        other.cost = solver_.cost_of(other.labels);
        if (other.cost >= point.cost) continue;
        other.load = solver_.load_of(other.labels);
        if (other.load > budget_ + slack_) continue;
        point = std::move(other);
        better = true;
      }
    }
  }
  offer(point);
}

// Bounds a node from below and finds labels on both sides of the budget. False:
// nothing in it can be better than the incumbent.
bool BudgetSolver::Search::relax(Node* node) {
  if (node->price > 0) {  // the parent's price often settles it
    Point point;
    const double value = priced_minimum(1, node->price, node->allowed, &point);
    offer(point);
    if (hopeless(value - node->price * budget_)) return false;
  }
  Point& above = node->above;
  Point& below = node->below;
  node->bound = priced_minimum(1, 0, node->allowed, &above);
  offer(above);
  if (hopeless(node->bound)) return false;
  const double least_load = priced_minimum(0, 1, node->allowed, &below);
  if (least_load > budget_ + slack_) return false;
  offer(below);
  for (int step = 0; step < 50 && below.load < above.load; ++step) {
    if (below.load > budget_ + slack_ || below.cost == kInf) break;
    node->price = (below.cost - above.cost) / (above.load - below.load);
    if (!(node->price > 0)) break;
    Point point;
    const double value = priced_minimum(1, node->price, node->allowed, &point);
    node->bound = std::max(node->bound, value - node->price * budget_);
    offer(point);
    if (hopeless(node->bound)) return false;
    const double known = above.cost + node->price * above.load;
    if (value >= known - kTolerance * (1 + std::abs(known))) break;
    (point.load <= budget_ + slack_ ? below : above) = std::move(point);
  }
  return true;
}

// Labels whose own bound is no better than the incumbent.
void BudgetSolver::Search::forbid_hopeless_labels(Node* node) {
  Point point;
  for (std::size_t v = 0; v < node->allowed.size(); ++v) {
    const Table all = node->allowed[v];
    Table left = all;
    for (std::size_t label = 0; label < all.size(); ++label) {
      if (all[label] == kInf) continue;
      node->allowed[v].assign(all.size(), kInf);
      node->allowed[v][label] = 0;
      const double value =
          priced_minimum(1, node->price, node->allowed, &point);
      offer(point);
      if (hopeless(value - node->price * budget_)) left[label] = kInf;
    }
    node->allowed[v] = std::move(left);
  }
}

// One in which the two sides differ, and of these one that most terms read;
// else any that is not decided yet; -1: all are.
int BudgetSolver::Search::branching_variable(const Node& node) const {
  std::vector<int> weight(node.allowed.size());
  for (const BudgetTerm& term : problem_.terms) {
    for (const int v : term.scope) ++weight[v];
  }
  int chosen = -1;
  std::pair<bool, int> most{false, -1};
  for (std::size_t v = 0; v < node.allowed.size(); ++v) {
    if (std::count(node.allowed[v].begin(), node.allowed[v].end(), 0.0) < 2) {
      continue;
    }
    const bool differs = !node.below.labels.empty() &&
                         node.below.labels[v] != node.above.labels[v];
    if (std::make_pair(differs, weight[v]) > most) {
      most = {differs, weight[v]};
      chosen = static_cast<int>(v);
    }
  }
  return chosen;
}

BudgetSolution BudgetSolver::Search::run() {
  Node root;
  for (const int size : problem_.domain_sizes) {
    root.allowed.emplace_back(static_cast<std::size_t>(size), 0.0);
  }
  const Allowed all = root.allowed;
  double proven = kInf;  // least bound of what was not searched to its end
  const bool open = relax(&root);
  std::priority_queue<Node, std::vector<Node>, Later> queue;
  if (open) {
    improve(root.below);
    forbid_hopeless_labels(&root);
    queue.push(std::move(root));
  }
  for (int nodes = 0; !queue.empty(); ++nodes) {
    Node node = queue.top();
    queue.pop();
    if (hopeless(node.bound)) break;  // as are all others
    const int v = branching_variable(node);
    if (v < 0) continue;
    if (nodes >= solver_.max_nodes_) {
      proven = node.bound;
      break;
    }
    for (std::size_t label = 0; label < node.allowed[v].size(); ++label) {
      if (node.allowed[v][label] == kInf) continue;
      Node child;
      child.allowed = node.allowed;
      child.allowed[v].assign(node.allowed[v].size(), kInf);
      child.allowed[v][label] = 0;
      child.price = node.price;
      if (!relax(&child)) continue;
      child.bound = std::max(child.bound, node.bound);
      improve(child.below);
      queue.push(std::move(child));
    }
  }
  if (best_.cost == kInf) {
    Point least;
    priced_minimum(0, 1, all, &least);
    return {least.labels, least.cost, least.load, false, 0};
  }
  const double gap = std::max(0.0, best_.cost - proven);
  return {best_.labels, best_.cost, best_.load, true, gap};
}

BudgetSolver::BudgetSolver(BudgetProblem problem, int max_nodes)
    : problem_(std::move(problem)),
      max_nodes_(max_nodes),
      elimination_(problem_.domain_sizes, scopes_of(problem_)) {}

double BudgetSolver::cost_of(const std::vector<int>& labels) const {
  double total = 0;
  for (const BudgetTerm& term : problem_.terms) {
    total += term.cost[index_in(problem_, term, labels)];
  }
  return total;
}

double BudgetSolver::load_of(const std::vector<int>& labels) const {
  double total = 0;
  for (const BudgetTerm& term : problem_.terms) {
    total += term.load[index_in(problem_, term, labels)];
  }
  return total;
}

BudgetSolution BudgetSolver::solve(double budget) const {
  return Search(*this, budget).run();
}

}  // namespace aimetpp::mixed
