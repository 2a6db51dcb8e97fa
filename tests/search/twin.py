"""The search in plain Python: slow, short, and the oracle of the native core.

Written from the description of the algorithms, not of their data structures: every plan is decoded
whole, every longest path computed anew.
"""

from __future__ import annotations

from tests.search.twin_heuristics import Sets, run_heuristic
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.search import CpgaParams

MASK = 2**64 - 1


class Rng:
    """xoshiro256** seeded by splitmix64."""

    def __init__(self, seed: int) -> None:
        self.s = []
        for _ in range(4):
            seed = (seed + 0x9E3779B97F4A7C15) & MASK
            z = seed
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
            self.s.append(z ^ (z >> 31))

    def next(self) -> int:
        s = self.s
        x = s[1] * 5 & MASK
        result = ((x << 7 | x >> 57) & MASK) * 9 & MASK
        t = s[1] << 17 & MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = (s[3] << 45 | s[3] >> 19) & MASK
        return result

    def below(self, bound: int) -> int:
        # Lemire: reject the low products that would make some results likelier than others.
        while True:
            product = (self.next() >> 32) * bound
            if product % 2**32 >= 2**32 % bound:
                return product >> 32


def log2_q16(value: int) -> int:
    """Return log2 with 16 fractional bits, by squaring a mantissa of 31 fractional bits."""
    whole = value.bit_length() - 1
    mantissa = value >> (whole - 31) if whole > 31 else value << (31 - whole)
    result = whole
    for _ in range(16):
        mantissa = mantissa * mantissa >> 31
        result *= 2
        if mantissa >= 2**32:
            mantissa >>= 1
            result += 1
    return result


MINUS_LOG = [((11 << 16) - log2_q16(2 * i + 1)) * 45426 >> 16 for i in range(1024)]
POWER = [2**31]
for _ in range(255):
    POWER.append(POWER[-1] * 4283353945 >> 32)
POWER = [power >> 15 for power in POWER]


def temperature_at(hot: int, cold: int, progress: int) -> int:
    octaves = log2_q16(hot) - log2_q16(max(cold, 1))
    exponent = octaves * progress >> 16 if octaves > 0 else 0
    return (hot * POWER[exponent >> 8 & 255] >> 16) >> (exponent >> 16)


class Chromosome:
    def __init__(self, order: list[int], device: list[int], makespan: int) -> None:
        self.order, self.device, self.makespan = list(order), list(device), makespan


class Twin:
    """The annealer and the genetic search around it, without memory limits."""

    def __init__(self, problem: SchedulingProblem, params: CpgaParams, seed: int) -> None:
        self.p, self.params, self.rng = problem, params, Rng(seed)
        self.n, self.exec = problem.num_tasks, problem.exec_ns.tolist()
        self.preds: list[list[tuple[int, int]]] = [[] for _ in range(self.n)]
        self.succs: list[list[tuple[int, int]]] = [[] for _ in range(self.n)]
        edges = zip(problem.edges.tolist(), problem.copy_class.tolist(), strict=True)
        for (src, dst), row in sorted(edges):
            self.preds[dst].append((src, row))
            self.succs[src].append((dst, row))
        self.copy = problem.copy_ns.tolist()
        self.sets = Sets(problem)
        self.evaluations = self.last_improvement = self.hot = self.cycle = self.since_sort = 0
        self.worse_seen = self.worse_taken = self.temperature = self.cycle_begin = 0
        self.is_child = False
        self.mean_exec = sum(min(e for e in row if e >= 0) for row in self.exec) // max(1, self.n)
        self.best: Chromosome | None = None
        self.seeds: list[Chromosome] = []
        self.members: list[Chromosome] = []
        for kind in ("heft", "cpop", "peft", "fastest", *range(problem.num_devices)):
            found = run_heuristic(problem, kind)
            if found is not None:
                order, device, finish = found
                starts = [(finish[t] - self.exec[t][device[t]], finish[t]) for t in range(self.n)]
                order.sort(key=lambda task: starts[task])
                self.load(order, device)
                self.seeds.append(Chromosome(self.order, self.device, self.makespan))
        self.seeds.sort(key=lambda seed: seed.makespan)

    # Plans.

    def decode(self, order: list[int], device: list[int]) -> tuple[list[int], int]:
        free = [0] * (1 + max(max(group) for group in self.p.core_groups))
        finish, makespan = [0] * self.n, 0
        for task in order:
            on = device[task]
            start = int(self.p.release_ns[task, on])
            for src, row in self.preds[task]:
                start = max(start, finish[src] + self.copy[row][device[src]][on])
            start = max(start, *(free[r] for r in self.p.core_groups[on]))
            finish[task] = start + self.exec[task][on]
            for r in self.p.core_groups[on]:
                free[r] = finish[task]
            makespan = max(makespan, finish[task] + int(self.p.delivery_ns[task, on]))
        return finish, makespan

    def tails(self) -> list[int]:
        need = [0] * (1 + max(max(group) for group in self.p.core_groups))
        rest = [0] * self.n
        for task in reversed(self.order):
            on = self.device[task]
            tail = int(self.p.delivery_ns[task, on])
            for dst, row in self.succs[task]:
                tail = max(tail, self.copy[row][on][self.device[dst]] + rest[dst])
            tail = max(tail, *(need[r] for r in self.p.core_groups[on]))
            rest[task] = tail + self.exec[task][on]
            for r in self.p.core_groups[on]:
                need[r] = rest[task]
        return rest

    def set_plan(self, order: list[int], device: list[int]) -> None:
        self.order, self.device = list(order), list(device)
        self.finish, self.makespan = self.decode(self.order, self.device)
        self.begin, self.end = 0, self.n - 1

    def load(self, order: list[int], device: list[int]) -> None:
        self.set_plan(order, device)
        self.evaluations += 1
        self.keep_best()

    def keep_best(self) -> None:
        if self.best is None or self.makespan < self.best.makespan:
            self.best = Chromosome(self.order, self.device, self.makespan)
            self.last_improvement = self.evaluations

    def sort(self) -> None:
        key = {t: (self.finish[t] - self.exec[t][self.device[t]], self.finish[t]) for t in self.order}
        self.set_plan(sorted(self.order, key=lambda task: key[task]), self.device)

    def critical(self) -> list[int]:
        rest = self.tails()
        return [
            task
            for task in self.order[self.begin : self.end + 1]
            if self.finish[task] - self.exec[task][self.device[task]] + rest[task] == self.makespan
        ]

    # Changes: each returns the order and the devices after it, or None if nothing changes.

    def draw_task(self) -> int:
        if self.rng.below(100) < self.critical_percent:
            critical = self.critical()
            if critical:
                return critical[self.rng.below(len(critical))]
        return self.order[self.begin + self.rng.below(self.end - self.begin + 1)]

    def in_focus(self, number: int) -> bool:
        places = [self.order.index(task) for task in self.sets.members[number]]
        return all(self.begin <= place <= self.end for place in places)

    def move_set(self, device: list[int], number: int, to: int) -> list[int]:
        moved = [task for task in self.sets.members[number] if device[task] != to]
        for task in moved:
            device[task] = to
        return moved

    def draw_neighbour(self, task: int) -> int | None:
        near = self.preds[task] + self.succs[task]
        return near[self.rng.below(len(near))][0] if near else None

    def draw_change(self, task: int) -> tuple[list[int], list[int]] | None:
        kind, number = self.rng.below(100), self.sets.of_task[task]
        if not self.in_focus(number):
            return None
        if kind < self.params.swap_percent:
            return self.draw_swap(task)
        to = self.sets.choices[number][self.rng.below(len(self.sets.choices[number]))]
        kind -= self.params.swap_percent
        if kind < self.params.block_percent and to != self.device[task]:
            return self.draw_block(task, to)
        return self.draw_place(task, self.device[task] if kind % 2 else to)

    def draw_swap(self, task: int) -> tuple[list[int], list[int]] | None:
        at, span = self.order.index(task), 2 << self.rng.below(self.params.max_span_bits)
        lowest, highest = max(self.begin, at - span), min(self.end, at + span)
        other = self.order[lowest + self.rng.below(highest - lowest + 1)]
        here, there = self.device[task], self.device[other]
        number, other_number = self.sets.of_task[task], self.sets.of_task[other]
        if here == there or number == other_number or not self.in_focus(other_number):
            return None
        if there not in self.sets.choices[number] or here not in self.sets.choices[other_number]:
            return None
        device = list(self.device)
        self.move_set(device, number, there)
        self.move_set(device, other_number, here)
        return self.order, device

    def draw_block(self, task: int, to: int) -> tuple[list[int], list[int]]:
        own, device = self.device[task], list(self.device)
        gather = self.rng.below(100) < self.params.gather_percent
        bits = 1 + self.rng.below(self.params.max_block_bits)
        size = 2 + self.rng.below(1 << bits)
        moved = self.move_set(device, self.sets.of_task[task], to)
        marked = set(self.sets.members[self.sets.of_task[task]])
        tries = 0
        while tries < 3 * size and len(moved) < size:
            tries += 1
            near = self.draw_neighbour(moved[self.rng.below(len(moved))])
            if near is None:
                break
            number = self.sets.of_task[near]
            if near in marked or device[near] == to or not (gather or device[near] == own):
                continue
            if to in self.sets.choices[number] and self.in_focus(number):
                moved += self.move_set(device, number, to)
                marked |= set(self.sets.members[number])
        return self.order, device

    def draw_place(self, task: int, to: int) -> tuple[list[int], list[int]] | None:
        at, span = self.order.index(task), 2 << self.rng.below(self.params.max_span_bits)
        place_of = {other: place for place, other in enumerate(self.order)}
        lowest = max([self.begin, at - span, *(place_of[p] + 1 for p, _ in self.preds[task])])
        highest = min([self.end, at + span, *(place_of[s] - 1 for s, _ in self.succs[task])])
        place = lowest + self.rng.below(highest - lowest + 1)
        if place == at and to == self.device[task]:
            return None
        order, device = list(self.order), list(self.device)
        if to != device[task]:
            self.move_set(device, self.sets.of_task[task], to)
        order.insert(place, order.pop(at))
        return order, device

    # Annealing.

    def step(self) -> None:
        task = self.draw_task()
        self.evaluations += 1
        change = self.draw_change(task)
        if change is None:
            return
        factor = MINUS_LOG[self.rng.next() >> 54]
        hot = self.temperature
        limit = self.makespan + (hot >> 16) * factor + ((hot & 0xFFFF) * factor >> 16)
        finish, makespan = self.decode(*change)
        self.worse_seen += makespan > self.makespan
        if makespan <= limit:
            self.worse_taken += makespan > self.makespan
            (self.order, self.device), self.finish, self.makespan = change, finish, makespan
            self.keep_best()

    def choose_focus(self) -> None:
        size = self.params.focus
        self.since_sort += 1
        if self.since_sort >= self.params.sort_every:
            self.sort()
            self.since_sort = 0
        self.begin, self.end = 0, self.n - 1
        if size >= self.n or self.rng.below(32) == 0:
            return
        self.begin = max(0, min(self.rng.below(self.n) - size // 2, self.n - size))
        self.end = self.begin + size - 1

    def visit(self, target: int, most: int) -> None:
        end = self.evaluations + min(self.params.visit + self.n // 8, most)
        self.choose_focus()
        while self.evaluations < end:
            self.step()
        if self.worse_seen >= 1000:
            if self.worse_taken << 20 > target * self.worse_seen:
                self.temperature -= self.temperature // 16
            else:
                self.temperature += self.temperature // 16 + 1
            self.worse_seen = self.worse_taken = 0

    # Cycles.

    def cross(self) -> None:
        a, b = self.rng.below(len(self.members)), self.rng.below(len(self.members) - 1)
        b += b >= a
        first, second = self.members[a], self.members[b]
        better, other = (second, first) if second.makespan < first.makespan else (first, second)
        self.set_plan(better.order, better.device)
        region: list[int] = []
        size = 1 + self.n // 8 + self.rng.below(self.n // 2 + 1)
        near: int | None = self.rng.below(self.n)
        tries = 0
        while near is not None and len(region) < size and tries < 4 * size:
            tries += 1
            if near not in region:
                region.append(near)
            near = self.draw_neighbour(region[self.rng.below(len(region))])
        for task in region:
            for member in self.sets.members[self.sets.of_task[task]]:
                self.device[member] = other.device[task]

    def take_individual(self) -> None:
        self.is_child = len(self.members) >= self.wanted_members and len(self.members) > 1
        if self.is_child:
            self.cross()
        elif self.is_one and self.cycle > 0:
            assert self.best is not None
            self.set_plan(self.best.order, self.best.device)
        else:
            seed = self.seeds[self.cycle % len(self.seeds)]
            self.set_plan(seed.order, seed.device)
            if self.cycle % 3:
                for number, members in enumerate(self.sets.members):
                    choices = self.sets.choices[number]
                    to = choices[self.rng.below(len(choices))]
                    for task in members:
                        self.device[task] = to
        self.load(self.order, self.device)
        self.sort()

    def effort(self) -> int:
        if self.params.effort:
            return self.params.effort
        longest = [max(map(max, self.copy[row])) for row in self.p.copy_class.tolist()]
        copy_ns = sum(longest) // len(longest) if longest else 0
        quarters = min(1000, copy_ns // max(1, self.mean_exec // 4))
        return max(300, min(5000, 800_000 // max(1, quarters**2)))

    def lay_out_cycle(self, horizon: int) -> None:
        left, least = max(1, horizon - self.cycle_begin), self.effort()
        wanted = max(least * self.n, min(max(least, 5000) * self.n, horizon // self.params.cycles))
        count = left // wanted
        members = (max(0, self.cycle - 1) + count) // 3
        self.wanted_members = max(1, min(self.params.population, members))
        self.is_one = horizon // wanted < 4
        self.cycle_length = left if count < 2 else left // count
        if self.is_one and self.cycle_begin == 0:
            self.cycle_length = max(1, horizon // 32)
        elif self.is_one:
            self.cycle_length = max(1, horizon // 8) if self.cycle_begin < horizon // 16 else left

    def begin_cycle(self, horizon: int) -> None:
        assert self.best is not None
        self.cycle_begin = self.evaluations if self.cycle else 0
        guess = 1 + min(self.best.makespan >> 8, self.mean_exec >> 2)
        self.temperature = self.hot if self.hot > 0 else guess
        self.worse_seen = self.worse_taken = self.since_sort = self.hot = 0
        self.take_individual()
        self.cycle += 1
        self.lay_out_cycle(horizon)

    def end_cycle(self) -> None:
        self.sort()
        plan = Chromosome(self.order, self.device, self.makespan)
        if len(self.members) < self.wanted_members:
            self.members.append(plan)
            return
        values = [member.makespan for member in self.members]
        if plan.makespan not in values and plan.makespan < max(values):
            self.members[values.index(max(values))] = plan

    def run(self, max_evaluations: int, horizon: int) -> None:
        end = min(self.evaluations + max_evaluations, horizon)
        self.lay_out_cycle(horizon)
        while self.evaluations < end:
            if self.cycle == 0 or self.evaluations - self.cycle_begin >= self.cycle_length:
                if self.cycle:
                    self.end_cycle()
                self.begin_cycle(horizon)
            length, done = self.cycle_length, self.evaluations - self.cycle_begin
            progress = min(65536, (done << 16) // length)
            if self.hot == 0 and progress > 6554:
                self.hot = self.temperature
            again = self.is_child or (self.is_one and self.cycle > 1)
            first = self.params.accept_again if again else self.params.accept_first
            first = max(self.params.accept_last, first * min(length // self.n, 256) // 256)
            late = progress >= 32768
            self.critical_percent = self.params.late_percent if late else self.params.critical_percent
            target = temperature_at(first, self.params.accept_last, progress)
            self.visit(target, min(length - done, horizon - self.evaluations))
