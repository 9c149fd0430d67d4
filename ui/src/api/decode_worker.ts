// Decodes a large flame graph off the main thread, so that the page stays responsive.
import { buildModel } from '../flamegraph/model';
import type { SelectMergeStacktracesResponse } from './types';

interface Scope {
  onmessage: ((event: MessageEvent<string>) => void) | null;
  postMessage(message: unknown, transfer: Transferable[]): void;
}

const scope = self as unknown as Scope;

scope.onmessage = ({ data }) => {
  const { flamegraph = {}, explained } = JSON.parse(data) as SelectMergeStacktracesResponse & { explained?: unknown };
  const body = buildModel(flamegraph);
  // Each array has its own buffer, so all can be transferred instead of copied.
  const transfer = Object.values(body)
    .filter((part): part is Float64Array<ArrayBuffer> => ArrayBuffer.isView(part))
    .map((part) => part.buffer);
  scope.postMessage({ body, explained }, transfer);
};
