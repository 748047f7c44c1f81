/**
 * Hands the trace of a message to the activities that the message leads to. It runs inside of workflows, makes no spans
 * and changes no history but for the headers.
 *
 * Not `@temporalio/interceptors-opentelemetry`: at the version of the SDK it brings OpenTelemetry's SDK 1 into each
 * workflow's isolate; its successor `-v2` is not published for that version. Nothing runs in a workflow that would take
 * time of its own, so a span there would say nothing that those around it do not.
 */
import type { Headers } from '@temporalio/common';
import { AsyncLocalStorage, type WorkflowInterceptors } from '@temporalio/workflow';
import { traceHeader } from './contract.ts';

type Trace = Headers[string];

const current = new AsyncLocalStorage<Trace | undefined>();

const withTrace = (headers: Headers): Headers => {
  const trace = current.getStore();
  return trace === undefined ? headers : { ...headers, [traceHeader]: trace };
};

/** Temporal calls it for each workflow. */
export const interceptors = (): WorkflowInterceptors => ({
  inbound: [
    {
      execute: (input, next) => current.run(input.headers[traceHeader], () => next(input)),
      handleUpdate: (input, next) => current.run(input.headers[traceHeader], () => next(input)),
    },
  ],
  outbound: [
    {
      scheduleActivity: (input, next) => next({ ...input, headers: withTrace(input.headers) }),
      scheduleLocalActivity: (input, next) => next({ ...input, headers: withTrace(input.headers) }),
    },
  ],
});
