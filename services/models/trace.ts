import { type Context, context, type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { type Logger, reasonOf } from '@somagent/kit';
import type { Call } from './call.ts';
import { ModelError } from './errors.ts';
import type { CallOptions, ChatChunk } from './types.ts';

const tracer = trace.getTracer('@somagent/models');

/**
 * Runs a call in a span of its own and accounts for it at its end, however it ends.
 * Names: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
 */
export async function* traced(
  model: string,
  call: Call,
  { requestId, onSpent }: CallOptions,
  log: Logger,
): AsyncGenerator<ChatChunk> {
  const span = tracer.startSpan(`chat ${model}`, {
    kind: SpanKind.CLIENT,
    attributes: { 'gen_ai.request.model': model, ...(requestId === undefined ? {} : { 'soma.request_id': requestId }) },
  });
  try {
    yield* within(trace.setSpan(context.active(), span), call.run());
  } catch (error) {
    span.setStatus({ code: SpanStatusCode.ERROR, message: reasonOf(error) });
    span.setAttribute('error.type', error instanceof ModelError ? error.code : 'cancelled');
    throw error;
  } finally {
    const { spent } = call;
    describe(span, spent);
    span.end();
    if (spent.reasons.length > 0) log.warn({ asked: model, requestId, ...spent }, 'the first provider did not answer');
    onSpent?.(spent);
  }
}

/** The same items, each made in a context: a generator has none of its own. */
async function* within<Item>(parent: Context, items: AsyncGenerator<Item>): AsyncGenerator<Item> {
  try {
    for (;;) {
      const { done, value } = await context.with(parent, () => items.next());
      if (done) return;
      yield value;
    }
  } finally {
    await items.return(undefined);
  }
}

function describe(span: Span, { provider, model, usage, costMicros, reasons }: Call['spent']): void {
  span.setAttributes({
    ...(provider === null ? {} : { 'gen_ai.provider.name': provider }),
    ...(model === null ? {} : { 'gen_ai.response.model': model }),
    'gen_ai.usage.input_tokens': usage.promptTokens,
    'gen_ai.usage.output_tokens': usage.completionTokens,
    'soma.cost_micros': costMicros,
    'soma.reasons': [...reasons],
  });
  for (const reason of reasons) span.addEvent('fallback', { 'soma.reason': reason });
}
