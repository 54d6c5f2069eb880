#!/usr/bin/env python3
"""Weighs the machine code of a kernel: lane-instructions per element, by phase and by pipe.

    sass.py DISASSEMBLY KERNEL [-v]      (`cargo xtask sass` makes the disassembly: nvdisasm -c -gi, of a cubin with -lineinfo)

Comments in the sources say what to weigh with:

    // elements: 4096                    what a warp decodes
    // phase: main, 16/4                 from here on, instructions in loops run 16/4 times, others once
    // phase: slow, 0, 0                 the same, and others 0 times
    // phase: end                        from here on no phase
    // cases: JOIN_BF16                  of the cases of switches only this one counts

A phase reaches to the next such comment of its file. An instruction that comes of inlined functions has a chain of source
lines, from the function's own to the kernel's; it belongs to the first that lies in a phase, and counts nothing where any of
them lies in a phase of weight 0, or in the line of another case than those that count. Only what convergent warps reach is
counted. Trips are of a loop's body as compiled (16 turns unrolled by 4: 4 trips), and measured averages where they depend
on the data. Nested loops are not told apart.
"""

import bisect
import collections
import os
import re
import sys

# Lanes that each pipe of a streaming multiprocessor takes in a clock (CUDA programming guide, arithmetic instructions,
# compute capability 9.0); ISSUE is all instructions; LSU in words, that is without bank conflicts.
LANES = {'ALU': 64, 'FMA': 64, 'XU': 16, 'LSU': 32, 'ISSUE': 128}
# Those of an H200, and its clock in Hz.
MULTIPROCESSORS, CLOCK = 132, 1.75e9

PIPES = ['LDS', 'STS', 'LDG', 'STG', 'SHFL', 'XU', 'FMA', 'ALU', 'UNIFORM', 'CONTROL']
OPCODES = {
    'LDS': 'LDS LDSM',
    'STS': 'STS',
    'LDG': 'LDG LD LDL LDGSTS',
    'STG': 'STG ST STL',
    'SHFL': 'SHFL',
    'XU': 'POPC FLO BREV MUFU I2F',
    'FMA': 'FFMA FMUL FADD IDP',
    'CONTROL': 'BRA EXIT BSSY BSYNC WARPSYNC CALL RET BAR NOP BREAK BMOV YIELD DEPBAR MEMBAR LDC LDGDEPBAR ERRBAR',
    'UNIFORM': 'S2R S2UR R2UR CS2R',
}
PIPE_OF = {opcode: pipe for pipe, opcodes in OPCODES.items() for opcode in opcodes.split()}
MEMORY = ('LDS', 'STS', 'LDG', 'STG')

Instruction = collections.namedtuple('Instruction', 'address predicate opcode operands lines')
Phase = collections.namedtuple('Phase', 'name trips straight')


def pipe(opcode):
    name = opcode.split('.')[0]
    if name.startswith('IMAD'):
        return 'FMA'
    return PIPE_OF.get(name) or ('UNIFORM' if name.startswith('U') else 'ALU')


def words(opcode):
    """Words that a memory instruction moves for each lane."""
    return 4 if '.128' in opcode else 2 if '.64' in opcode else 1


# ---- the disassembly ------------------------------------------------------------------------------------------------


def parse(text, kernel):
    """Instructions of a kernel, each with its source lines from the innermost, and the index of each label."""
    instructions, labels, lines, complete, inside = [], {}, [], True, False
    for line in text.split('\n'):
        if line.startswith('.text.'):
            inside = line.strip() == f'.text.{kernel}:'
        elif line.startswith(('\t.section', '//----')):
            inside = False
        if not inside:
            continue
        at = re.match(r'\s*//## File "([^"]*)", line (\d+)', line)
        label = re.match(r'(\.L_[^:]*):', line)
        code = re.match(r'\s*/\*([0-9a-f]+)\*/\s+(?:\{\s*)?(@!?U?P\d+\s+)?([A-Z0-9_.]+)(.*?);', line)
        if at:
            if complete:
                lines, complete = [], False
            inlined = re.search(r'inlined at "([^"]*)", line (\d+)', line)
            lines += [(match.group(1), int(match.group(2))) for match in (at, inlined) if match]
        elif label:
            labels[label.group(1)] = len(instructions)
        elif code:
            complete = True
            address, predicate, opcode, operands = code.groups()
            instructions.append(Instruction(address, (predicate or '').strip(), opcode, operands.strip(), tuple(lines)))
    return instructions, labels


# ---- control flow: what is reached, and what is in a loop -------------------------------------------------------------


def target(instruction, labels):
    label = re.search(r'`\((\.L_[^)]*)\)', instruction.operands)
    return labels.get(label.group(1)) if label else None


def basic_blocks(instructions, labels):
    """First instruction of each block, and the blocks that follow each."""
    first = {0}
    for i, instruction in enumerate(instructions):
        name = instruction.opcode.split('.')[0]
        if name in ('BRA', 'EXIT', 'RET', 'CALL', 'BSYNC', 'BREAK'):
            first.add(i + 1)
        if name in ('BRA', 'BSSY', 'CALL') and target(instruction, labels) is not None:
            first.add(target(instruction, labels))
    first = sorted(i for i in first if i < len(instructions))
    block_of = lambda i: bisect.bisect_right(first, i) - 1
    followers, reconvergence = [], {}
    for k, start in enumerate(first):
        end = first[k + 1] if k + 1 < len(first) else len(instructions)
        for instruction in instructions[start:end]:
            if instruction.opcode.startswith('BSSY'):
                reconvergence[instruction.operands.split(',')[0].strip()] = target(instruction, labels)
        last = instructions[end - 1]
        name, to = last.opcode.split('.')[0], target(last, labels)
        falls_through = bool(last.predicate) or name not in ('BRA', 'EXIT', 'RET')
        next_blocks = []
        if name == 'BRA' and 'DIV' in last.opcode:
            falls_through = True  # taken by diverged warps only
        elif name == 'BRA' and to is not None:
            next_blocks.append(block_of(to))
            falls_through = bool(last.predicate) or bool(re.match(r'!?U?P\d', last.operands))
        elif name == 'BSYNC':
            to = reconvergence.get(last.operands.split(',')[0].strip())
            if to is not None:
                next_blocks.append(block_of(to))
                falls_through = False
        if falls_through and k + 1 < len(first):
            next_blocks.append(k + 1)
        followers.append(next_blocks)
    return first, followers


def closure(start, next_of, stop=()):
    found, waiting = set(stop), list(start)
    while waiting:
        block = waiting.pop()
        if block not in found:
            found.add(block)
            waiting += next_of[block]
    return found


def loops(followers):
    """Blocks that are reached, and those in a natural loop (Aho, Sethi, Ullman: a back edge goes to a dominator)."""
    reached = closure([0], followers)
    before = {k: [p for p in reached if k in followers[p]] for k in reached}
    dominators = {k: set(reached) for k in reached}
    dominators[0] = {0}
    changed = True
    while changed:
        changed = False
        for k in sorted(reached - {0}):
            new = set.intersection(*(dominators[p] for p in before[k])) | {k}
            changed |= new != dominators[k]
            dominators[k] = new
    in_loop = set()
    for k in reached:
        for header in followers[k]:
            if header in dominators[k]:
                in_loop |= closure([k], before, stop=[header])
    return reached, in_loop


# ---- phases and weights -----------------------------------------------------------------------------------------------


class Marks:
    """The comments of the sources."""

    def __init__(self, files):
        self.elements, self.cases = None, set()
        self.phases = {}  # (file, line): the phase that the line lies in
        self.other_cases = {}  # (file, line): the case of a switch that the line is
        for file in filter(os.path.exists, files):
            self.read(file)

    def read(self, file):
        phase = None
        for number, line in enumerate(open(file, encoding='utf-8'), 1):
            mark = re.search(r'//\s*(elements|cases|phase):\s*(.+?)\s*$', line)
            kind, values = (mark.group(1), [value.strip() for value in mark.group(2).split(',')]) if mark else (None, [])
            if kind == 'elements':
                self.elements = int(values[0])
            elif kind == 'cases':
                self.cases.update(values)
            elif kind == 'phase':
                trips, straight = ([weight(value) for value in values[1:]] + [1, 1])[:2] if values[1:] else (1, 1)
                phase = None if values[0] == 'end' else Phase(values[0], trips, straight)
            self.phases[file, number] = phase
            case = re.search(r'\bcase (\w+):', line)
            if case:
                self.other_cases[file, number] = case.group(1)

    def chain(self, lines):
        """Phases of a chain of source lines; a phase of weight 0 where a case does not count."""
        for line in lines:
            if self.cases and self.other_cases.get(line) not in self.cases | {None}:
                yield Phase('other cases', 0, 0)
            elif self.phases.get(line):
                yield self.phases[line]


def weight(text):
    over, _, under = text.partition('/')
    return float(over) / float(under or 1)


def count(text, kernel, verbose=False):
    """Lane-instructions of a warp by phase and pipe, and by opcode; and how many instructions have no weight."""
    instructions, labels = parse(text, kernel)
    if not instructions:
        sys.exit(f'{kernel}: not in the disassembly')
    first, followers = basic_blocks(instructions, labels)
    reached, in_loop = loops(followers)
    marks = Marks({file for instruction in instructions for file, _ in instruction.lines})
    phases, opcodes, unweighed = collections.OrderedDict(), collections.Counter(), collections.Counter()
    for i, instruction in enumerate(instructions):
        block = bisect.bisect_right(first, i) - 1
        if block not in reached:
            unweighed['only for diverged warps'] += 1
            continue
        chain = list(marks.chain(instruction.lines))
        weights = [phase.trips if block in in_loop else phase.straight for phase in chain]
        if not chain or not all(weights):
            unweighed['of weight 0' if chain else 'outside all phases'] += 1
            continue
        phase, runs = chain[0], weights[0]
        counts = phases.setdefault(phase.name, collections.Counter())
        counts[pipe(instruction.opcode)] += runs
        if pipe(instruction.opcode) in MEMORY:
            counts['LSU'] += runs * words(instruction.opcode)
        opcodes[instruction.opcode.split('.')[0]] += runs
        if verbose:
            print(f'{instruction.address:>5} {phase.name:10} x{runs:<5.2f} {instruction.predicate:7}'
                  f' {instruction.opcode:22} {instruction.operands}')
    return phases, opcodes, unweighed, marks.elements


def report(kernel, phases, opcodes, unweighed, elements):
    if elements is None:
        print(f'{kernel}: its source does not say how many `// elements:` a warp decodes')
        return
    per_lane = elements / 32
    row = lambda name, counts: print(f'  {name:12} {sum(counts[p] for p in PIPES) / per_lane:6.2f}   '
                                     + ' '.join(f'{p} {counts[p] / per_lane:.2f}' for p in PIPES if counts[p]))
    print(f'{kernel}: lane-instructions per element')
    total = collections.Counter()
    for name, counts in phases.items():
        row(name, counts)
        total.update(counts)
    row('total', total)
    print('  by opcode:   ' + ' '.join(f'{name} {n / per_lane:.2f}' for name, n in opcodes.most_common(20)))
    print('  not weighed: ' + ', '.join(f'{n} instructions {why}' for why, n in unweighed.items()))
    total['ISSUE'] = sum(total[p] for p in PIPES)
    total['LSU'] += total['SHFL']
    bounds = {p: CLOCK * MULTIPROCESSORS * lanes * per_lane / total[p] for p, lanes in LANES.items() if total[p]}
    least = min(bounds, key=bounds.get)
    print('  at most, in 10^12 elements a second on an H200: '
          + ' '.join(f'{p} {bound / 1e12:.2f}' for p, bound in bounds.items()) + f'; {least} bounds it')


def main():
    disassembly, kernel = sys.argv[1:3]
    with open(disassembly, encoding='utf-8') as file:
        text = file.read()
    report(kernel, *count(text, kernel, '-v' in sys.argv))


if __name__ == '__main__':
    main()
