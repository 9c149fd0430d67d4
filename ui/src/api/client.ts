// One call of the public API over Connect JSON.
//
// Owns: the request, its failure as a typed error, what is known about its cost.
// Does not own: caching or cancelling (`use_answer`).

import { EXPLAIN_HEADERS, readExplained, type Explained } from './explain';
import { readReport, type Report } from './report';

const SERVICE = '/querier.v1.QuerierService/';

export interface Reply<T> {
  body: T;
  /** From the request to the last byte, seen from here. */
  milliseconds: number;
  /** Length of the answer after decompression. */
  bytes: number;
  report: Report;
  /** How it came about: null when the server does not tell, undefined when it was not asked to. */
  explained: Explained | null | undefined;
}

/** Why a question has no answer. */
export class ApiError extends Error {
  constructor(
    /** The method, as in `SelectSeries`. */
    readonly method: string,
    /** HTTP status; 0 when no server answered. */
    readonly status: number,
    /** Connect code, such as `invalid_argument`; empty when the answer had none. */
    readonly code: string,
    message: string,
    /** Empty when the server gave none. */
    readonly requestId: string,
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

export interface Question {
  /** As in `SelectSeries`. */
  method: string;
  request: object;
  /** Whether the answer is to tell how it came about, which takes the server more. */
  explain?: boolean;
}

/** What the text of an answer holds. */
export interface Decoded<T> {
  body: T;
  /** The field of that name, where there is one. */
  explained?: unknown;
}

/** Reads JSON in the page and makes the page's own words of it. */
export function json<Message, T>(make: (message: Message) => T): (text: string) => Decoded<T> {
  return (text) => {
    const message = JSON.parse(text) as Message & { explained?: unknown };
    return { body: make(message), explained: message.explained };
  };
}

/** `decode` makes the answer of the text; what it throws means that the text is no answer. */
export async function call<T>(
  { method, request, explain = false }: Question,
  signal: AbortSignal,
  decode: (text: string) => Decoded<T> | Promise<Decoded<T>>,
): Promise<Reply<T>> {
  const begun = performance.now();
  let response: Response;
  let text: string;
  try {
    response = await fetch(SERVICE + method, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'Connect-Protocol-Version': '1', ...(explain && EXPLAIN_HEADERS) },
      body: JSON.stringify(request),
      signal,
    });
    text = await response.text();
  } catch (cause) {
    if (signal.aborted) throw cause;
    throw new ApiError(method, 0, '', 'the server does not answer', '');
  }
  const milliseconds = performance.now() - begun;
  const requestId = response.headers.get('x-request-id') ?? '';
  if (!response.ok) {
    const { code, message } = readError(text);
    throw new ApiError(method, response.status, code, message, requestId);
  }
  try {
    const { body, explained } = await decode(text);
    return {
      body,
      milliseconds,
      bytes: text.length,
      report: readReport(response.headers),
      explained: explain ? readExplained(explained, Date.now()) : undefined,
    };
  } catch (cause) {
    if (signal.aborted) throw cause;
    throw new ApiError(method, response.status, '', 'the answer is not JSON', requestId);
  }
}

function readError(text: string): { code: string; message: string } {
  try {
    const parsed = JSON.parse(text) as { code?: unknown; message?: unknown };
    return { code: String(parsed.code ?? ''), message: String(parsed.message ?? '') };
  } catch {
    return { code: '', message: text.slice(0, 500) };
  }
}
