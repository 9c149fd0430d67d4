// Decodes a flame graph: a small response in the page, a large one in a worker.
import { buildModel, type FlameModel } from '../flamegraph';
import { json, type Decoded } from './client';
import type { SelectMergeStacktracesResponse } from './types';

/** Characters. Parsing this many takes a few frames. */
const SMALL_MAX = 512 * 1024;

const decode = json((message: SelectMergeStacktracesResponse) => buildModel(message.flamegraph ?? {}));

export async function decodeFlameGraph(text: string, signal: AbortSignal): Promise<Decoded<FlameModel>> {
  if (text.length <= SMALL_MAX) return decode(text);
  const worker = new Worker(new URL('./decode_worker.ts', import.meta.url), { type: 'module' });
  try {
    return await new Promise<Decoded<FlameModel>>((resolve, reject) => {
      worker.onmessage = ({ data }: MessageEvent<Decoded<FlameModel>>) => resolve(data);
      worker.onerror = () => reject(new SyntaxError('the response is not JSON'));
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      worker.postMessage(text);
    });
  } finally {
    worker.terminate();
  }
}
