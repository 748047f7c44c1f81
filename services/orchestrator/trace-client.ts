import { traceHeaders } from '@somagent/kit';
import type { WorkflowClientInterceptor } from '@temporalio/client';
import { defaultPayloadConverter, type Headers } from '@temporalio/common';
import { traceHeader } from './contract.ts';

/** What a message to a workflow says of the trace that it is sent in; nothing where nothing is traced. */
function withTrace(headers: Headers): Headers {
  const trace = traceHeaders();
  if (Object.keys(trace).length === 0) return headers;
  return { ...headers, [traceHeader]: defaultPayloadConverter.toPayload(trace) };
}

/** Sends the trace of a request along with what it asks of a session, for the client of whoever asks. */
export const traceSender: WorkflowClientInterceptor = {
  startUpdate: (input, next) => next({ ...input, headers: withTrace(input.headers) }),
  startUpdateWithStart: (input, next) =>
    next({
      ...input,
      workflowStartHeaders: withTrace(input.workflowStartHeaders),
      updateHeaders: withTrace(input.updateHeaders),
    }),
};
