import { type GovernedEnv, problemOf } from '@somagent/governance';
import { type Logger, messageOf } from '@somagent/kit';
import type { ChatChunk } from '@somagent/models';
import type { Context } from 'hono';
import { stream } from 'hono/streaming';
import { openAiErrorOf } from './openai-problems.ts';

/** What every piece of an answer says. */
export interface AnswerHead {
  readonly id: string;
  /** Seconds since the epoch. */
  readonly created: number;
  /** Public name. */
  readonly model: string;
}

/** An answer on its way to the client. */
export interface StreamedAnswer extends AnswerHead {
  /** The first piece has been waited for: whatever fails before is an ordinary answer with its status. */
  readonly first: ChatChunk;
  readonly rest: AsyncGenerator<ChatChunk>;
  /** Whether the client wants a last piece with the use. */
  readonly withUsage: boolean;
  /** To be called when the client leaves. */
  readonly leave: () => void;
  readonly log: Logger;
}

/**
 * Answers with pieces as OpenAI's API streams them. One that is cut short ends with an event `error` and without
 * `[DONE]`, which its clients throw.
 */
export function streamAnswer(context: Context<GovernedEnv>, answer: StreamedAnswer): Response {
  context.header('content-type', 'text/event-stream; charset=utf-8');
  context.header('cache-control', 'no-cache');
  // Without it a buffering proxy would hold pieces back.
  context.header('x-accel-buffering', 'no');
  return stream(context, async (out) => {
    out.onAbort(answer.leave);
    try {
      await out.write(piecesOf(answer, answer.first, true));
      for await (const chunk of answer.rest) await out.write(piecesOf(answer, chunk, false));
    } catch (error) {
      const problem = problemOf(error);
      const { requestId } = context.get('exchange');
      if (problem.type === 'internal') answer.log.error({ requestId, reason: messageOf(error) }, 'an answer broke off');
      await out.write(eventOf(openAiErrorOf(problem)));
    } finally {
      await answer.rest.return(undefined);
    }
  });
}

const eventOf = (data: unknown): string => `data: ${JSON.stringify(data)}\n\n`;

/** What a chunk is for the client, as one write: each costs a system call, and the client a wake-up. */
function piecesOf(
  { id, created, model, withUsage }: StreamedAnswer,
  { text, toolCalls, finish, usage }: ChatChunk,
  isFirst: boolean,
): string {
  const head = { id, object: 'chat.completion.chunk', created, model };
  const delta = {
    ...(isFirst && { role: 'assistant', content: '' }),
    ...(text !== '' && { content: text }),
    ...(toolCalls !== undefined && toolCalls.length > 0 && { tool_calls: toolCalls.map(deltaOf) }),
  };
  const more = withUsage && { usage: null };
  const choice = (fields: object, reason: string | null) => ({
    ...head,
    choices: [{ index: 0, delta: fields, logprobs: null, finish_reason: reason }],
    ...more,
  });
  const piece = Object.keys(delta).length > 0 ? eventOf(choice(delta, null)) : '';
  if (finish === undefined) return piece;
  const used = withUsage ? eventOf({ ...head, choices: [], usage: usageOf(usage) }) : '';
  return `${piece}${eventOf(choice({}, finish))}${used}data: [DONE]\n\n`;
}

const deltaOf = ({ index, id, name, arguments: text }: NonNullable<ChatChunk['toolCalls']>[number]) => ({
  index,
  ...(id !== undefined && { id, type: 'function' }),
  function: { ...(name !== undefined && { name }), arguments: text ?? '' },
});

/** The use in OpenAI's words. */
export const usageOf = (usage: ChatChunk['usage']) => {
  const { promptTokens, completionTokens } = usage ?? { promptTokens: 0, completionTokens: 0 };
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
};
