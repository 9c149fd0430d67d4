// One call of the public API over Connect JSON.
//
// Owns: the request, its failure as a typed error, its cost.
// Does not own: caching or cancelling (`use_answer`).

import { EXPLAIN_HEADERS, readExplained, type Explained } from './explain';
import { readReport, type Report } from './report';

const SERVICE = '/querier.v1.QuerierService/';

export interface Reply<T> {
  body: T;
  /** From the request to the last byte, measured in the page. */
  milliseconds: number;
  /** Length of the decompressed response. */
  bytes: number;
  report: Report;
  /** Null if the server does not explain answers, undefined if no explanation was requested. */
  explained: Explained | null | undefined;
}

/** Why a query has no answer. */
export class ApiError extends Error {
  constructor(
    /** Such as `SelectSeries`. */
    readonly method: string,
    /** HTTP status; 0 when no server answered. */
    readonly status: number,
    /** Connect code, such as `invalid_argument`; empty if absent. */
    readonly code: string,
    message: string,
    /** Empty if absent. */
    readonly requestId: string,
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

export interface Call {
  /** Such as `SelectSeries`. */
  method: string;
  request: object;
  /** Requests an explanation, which costs the server more. */
  explain?: boolean;
}

/** The content of a response. */
export interface Decoded<T> {
  body: T;
  /** The field `explained`, if present. */
  explained?: unknown;
}

/** Parses a response in the page and converts its message to a type of the page. */
export function json<Message, T>(convert: (message: Message) => T): (text: string) => Decoded<T> {
  return (text) => {
    const message = JSON.parse(text) as Message & { explained?: unknown };
    return { body: convert(message), explained: message.explained };
  };
}

/** Any error that `decode` throws means that the response is malformed. */
export async function call<T>(
  { method, request, explain = false }: Call,
  signal: AbortSignal,
  decode: (text: string) => Decoded<T> | Promise<Decoded<T>>,
): Promise<Reply<T>> {
  const start = performance.now();
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
    throw new ApiError(method, 0, '', 'the server does not respond', '');
  }
  const milliseconds = performance.now() - start;
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
    throw new ApiError(method, response.status, '', 'the response is not JSON', requestId);
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
