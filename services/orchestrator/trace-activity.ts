import { asTenant, contextFrom, contextOf, inSpan, isTracing, tenantOf } from '@somagent/kit';
import type { Context } from '@temporalio/activity';
import { defaultPayloadConverter } from '@temporalio/common';
import type { ActivityInboundCallsInterceptor, ActivityInterceptorsFactory } from '@temporalio/worker';
import { tenantOfWorkflow, traceHeader } from './contract.ts';

/** Each attempt of an activity in a span of the trace that its message was sent in, for the tenant of the session. */
export const traceActivity: ActivityInterceptorsFactory = (activity) => ({ inbound: receiver(activity) });

function receiver({ info }: Context): ActivityInboundCallsInterceptor {
  const { workflowId = '', runId = '' } = info.workflowExecution ?? {};
  return {
    execute: (input, next) => {
      if (!isTracing()) return next(input);
      const payload = input.headers[traceHeader];
      const sent = contextFrom(payload === undefined ? {} : defaultPayloadConverter.fromPayload(payload));
      // Of the session, whoever sent the message: a workflow belongs to one tenant.
      const tenant = tenantOfWorkflow(workflowId) ?? tenantOf(sent);
      const parent = tenant === undefined ? sent : contextOf(tenant, sent);
      const attributes = { 'temporal.workflow_id': workflowId, 'temporal.run_id': runId, 'soma.attempt': info.attempt };
      const run = () => inSpan(`activity ${info.activityType}`, { parent, attributes }, () => next(input));
      return tenant === undefined ? run() : asTenant(tenant, run);
    },
  };
}
