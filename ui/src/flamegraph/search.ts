// The functions that match a search, and their share of the profile.
import { ROOT, type FlameModel } from './model';

export interface SearchResult {
  /** One byte per name: 1 where it matches. */
  readonly marked: Uint8Array;
  readonly functions: number;
  /** Weight of the stacks with at least one match. */
  readonly value: number;
}

/**
 * `text` holds comma-separated terms; a function matches if any term does. A term is a case-sensitive
 * regular expression. If it is invalid or matches no name, it is case-insensitive plain text.
 */
export function search(model: FlameModel, text: string): SearchResult | null {
  const terms = splitTerms(text);
  if (terms.length === 0) return null;
  const marked = new Uint8Array(model.names.length);
  for (const term of terms) markTerm(model, term, marked);
  marked[model.name[ROOT]!] = 0;

  let functions = 0;
  for (const mark of marked) functions += mark;
  let value = 0;
  const inside = new Uint8Array(model.count);
  for (let bar = 1; bar < model.count; bar++) {
    if (inside[model.parent[bar]!]) inside[bar] = 1;
    else if (marked[model.name[bar]!]) {
      inside[bar] = 1;
      value += model.total[bar]!;
    }
  }
  return { marked, functions, value };
}

/** Splits at commas outside of brackets and braces: `{1,2}` stays whole. */
export function splitTerms(text: string): string[] {
  const terms: string[] = [];
  let depth = 0;
  let term = '';
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!;
    if (char === '\\') {
      term += char + (text[++i] ?? '');
      continue;
    }
    if (char === '{' || char === '[' || char === '(') depth++;
    if ((char === '}' || char === ']' || char === ')') && depth > 0) depth--;
    if (char === ',' && depth === 0) {
      terms.push(term);
      term = '';
    } else term += char;
  }
  terms.push(term);
  return terms.map((part) => part.trim()).filter((part) => part !== '');
}

function markTerm(model: FlameModel, term: string, marked: Uint8Array): void {
  let isFound = false;
  const mark = (test: (name: string) => boolean): void => {
    model.names.forEach((name, id) => {
      if (test(name)) {
        marked[id] = 1;
        isFound = true;
      }
    });
  };
  const expression = compile(term);
  if (expression) mark((name) => expression.test(name));
  if (isFound) return;
  const plain = term.toLowerCase();
  mark((name) => name.toLowerCase().includes(plain));
}

function compile(term: string): RegExp | null {
  try {
    return new RegExp(term);
  } catch {
    return null;
  }
}
