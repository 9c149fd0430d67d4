//! Sorts symbols so that neighbours resemble each other.
//!
//! Sorted strings share their beginnings, and stacktraces sorted from the root share their callers:
//! the symbols of a block take a tenth of the bytes of those of its segments.

use model::{Function, Line, Locations, NONE, Stacktraces, Strings, Symbols};

/// Returns the `used` stacktraces and the symbols that they need, sorted, and per old stacktrace id
/// the new one ([`NONE`] if it is not used).
pub(crate) fn sort(from: &Symbols, used: &[bool]) -> (Symbols, Vec<u32>) {
    select(from, used, Order::Sorted)
}

/// As [`sort`], for symbols that are already sorted: the used ones keep their order.
pub(crate) fn subset(sorted: &Symbols, used: &[bool]) -> (Symbols, Vec<u32>) {
    select(sorted, used, Order::Unchanged)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Sorted,
    Unchanged,
}

fn select(from: &Symbols, used: &[bool], order: Order) -> (Symbols, Vec<u32>) {
    let mut locations_used = vec![false; from.locations.len()];
    for (id, _) in used.iter().enumerate().filter(|(_, used)| **used) {
        for location in from.stacktraces.get(id as u32) {
            locations_used[*location as usize] = true;
        }
    }
    let mut functions_used = vec![false; from.functions.len()];
    let mut mappings_used = vec![false; from.mappings.len()];
    for (id, _) in locations_used.iter().enumerate().filter(|(_, used)| **used) {
        for line in from.locations.lines_of(id as u32) {
            mark(&mut functions_used, line.function);
        }
        mark(&mut mappings_used, from.locations.mapping[id]);
    }
    let mut strings_used = vec![false; from.strings.len()];
    for (function, _) in from.functions.iter().zip(&functions_used).filter(|(_, used)| **used) {
        mark(&mut strings_used, function.name);
        mark(&mut strings_used, function.system_name);
        mark(&mut strings_used, function.filename);
    }
    for (mapping, _) in from.mappings.iter().zip(&mappings_used).filter(|(_, used)| **used) {
        mark(&mut strings_used, mapping.filename);
        mark(&mut strings_used, mapping.build_id);
    }

    let mut into = Symbols::default();
    let strings = order.strings(&from.strings, strings_used, &mut into.strings);
    let string = |id: u32| strings[id as usize];

    let functions: Vec<Function> = from
        .functions
        .iter()
        .zip(&functions_used)
        .map(|(function, used)| match used {
            false => Function::default(),
            true => Function {
                name: string(function.name),
                system_name: string(function.system_name),
                filename: string(function.filename),
                start_line: function.start_line,
            },
        })
        .collect();
    let key = |f: &Function| (f.name, f.system_name, f.filename, f.start_line);
    let (places, function_ids) =
        order.arrange(&functions_used, |a, b| key(&functions[a]).cmp(&key(&functions[b])));
    into.functions = places.iter().map(|id| functions[*id]).collect();

    let (places, mapping_ids) = order.arrange(&mappings_used, |a, b| {
        let key = |id: usize| {
            let m = &from.mappings[id];
            (string(m.filename), string(m.build_id), m.memory_start, m.memory_limit, m.file_offset)
        };
        key(a).cmp(&key(b))
    });
    into.mappings = places
        .iter()
        .map(|id| {
            let mut mapping = from.mappings[*id];
            mapping.filename = string(mapping.filename);
            mapping.build_id = string(mapping.build_id);
            mapping
        })
        .collect();

    let location_ids =
        order.locations(&from.locations, &locations_used, &function_ids, &mapping_ids, &mut into.locations);
    let stack_ids = order.stacktraces(&from.stacktraces, used, &location_ids, &mut into.stacktraces);
    (into, stack_ids)
}

fn mark(used: &mut [bool], id: u32) {
    if let Some(used) = used.get_mut(id as usize) {
        *used = true;
    }
}

impl Order {
    /// Returns the used ids in order, and per id its place in that order.
    fn arrange(
        self,
        used: &[bool],
        mut compare: impl FnMut(usize, usize) -> std::cmp::Ordering,
    ) -> (Vec<usize>, Vec<u32>) {
        let mut order: Vec<usize> = (0..used.len()).filter(|id| used[*id]).collect();
        if self == Order::Sorted {
            order.sort_unstable_by(|a, b| compare(*a, *b).then(a.cmp(b)));
        }
        let mut places = vec![NONE; used.len()];
        for (place, id) in order.iter().enumerate() {
            places[*id] = place as u32;
        }
        (order, places)
    }

    fn strings(self, from: &Strings, mut used: Vec<bool>, into: &mut Strings) -> Vec<u32> {
        // The empty string is always included, and sorts first.
        mark(&mut used, 0);
        let (order, places) = self.arrange(&used, |a, b| from.get(a as u32).cmp(from.get(b as u32)));
        into.reserve(order.len(), order.iter().map(|id| from.get(*id as u32).len()).sum());
        for id in order {
            into.push(from.get(id as u32));
        }
        places
    }

    fn locations(
        self,
        from: &Locations,
        used: &[bool],
        functions: &[u32],
        mappings: &[u32],
        into: &mut Locations,
    ) -> Vec<u32> {
        let place = |places: &[u32], id: u32| places.get(id as usize).copied().unwrap_or(NONE);
        // By function names, outermost first, so that stacktraces are nearly in the order of the name tree.
        let lines = |id: usize| {
            from.lines_of(id as u32).iter().rev().map(|line| (place(functions, line.function), line.line))
        };
        let (order, places) = self.arrange(used, |a, b| {
            lines(a)
                .cmp(lines(b))
                .then_with(|| place(mappings, from.mapping[a]).cmp(&place(mappings, from.mapping[b])))
                .then_with(|| from.address[a].cmp(&from.address[b]))
        });
        into.reserve(order.len(), order.iter().map(|id| from.lines_of(*id as u32).len()).sum());
        let mut moved: Vec<Line> = Vec::new();
        for id in order {
            moved.clear();
            moved.extend(
                from.lines_of(id as u32)
                    .iter()
                    .map(|line| Line { function: place(functions, line.function), line: line.line }),
            );
            into.push(place(mappings, from.mapping[id]), from.address[id], from.folded[id], &moved);
        }
        places
    }

    fn stacktraces(
        self,
        from: &Stacktraces,
        used: &[bool],
        locations: &[u32],
        into: &mut Stacktraces,
    ) -> Vec<u32> {
        // Root first and with the new ids, so that comparison runs forward over plain memory.
        let mut moved = Stacktraces::default();
        let length_of = |(id, used): (usize, &bool)| if *used { from.get(id as u32).len() } else { 0 };
        let length = used.iter().enumerate().map(length_of).sum();
        moved.reserve(used.len(), length);
        for (id, used) in used.iter().enumerate() {
            let stack = if *used { from.get(id as u32) } else { &[] };
            moved.locations.extend(stack.iter().rev().map(|location| locations[*location as usize]));
            moved.offsets.push(moved.locations.len() as u32);
        }
        let (order, places) = self.arrange(used, |a, b| moved.get(a as u32).cmp(moved.get(b as u32)));
        into.reserve(order.len(), length);
        for id in order {
            into.locations.extend(moved.get(id as u32).iter().rev());
            into.offsets.push(into.locations.len() as u32);
        }
        places
    }
}
