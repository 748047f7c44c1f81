import type Anthropic from '@anthropic-ai/sdk';
import { ModelError } from './errors.ts';
import type { ChatRequest, Content, Message, ResponseFormat, ToolCall, ToolChoice } from './types.ts';

/** Most tokens of an answer where the request doesn't say: the API wants a number. */
const defaultMaxTokens = 1024;

/**
 * A chat request in the words of Anthropic's Messages API. `seed` is left out: it promises nothing anywhere.
 * @throws ModelError `unsupported` for what the API can't do, `invalid_request` for arguments of a tool that are no JSON
 */
export function anthropicRequest(request: ChatRequest, provider: string): Anthropic.MessageCreateParamsStreaming {
  refuseUnsupported(request, provider);
  const { model, messages, tools, tool_choice: choice, temperature, top_p, stop, max_tokens } = request;
  const system = messages.filter(isInstruction).map(({ content }) => textOf(content));
  const format = formatOf(request.response_format);
  return {
    model,
    max_tokens: max_tokens ?? defaultMaxTokens,
    messages: merged(messages.filter((message) => !isInstruction(message)).map((one) => messageOf(one, provider))),
    stream: true,
    ...(system.length === 0 ? {} : { system: system.join('\n\n') }),
    ...(temperature === undefined ? {} : { temperature }),
    ...(top_p === undefined ? {} : { top_p }),
    ...(stop === undefined ? {} : { stop_sequences: typeof stop === 'string' ? [stop] : [...stop] }),
    ...(tools === undefined || tools.length === 0 ? {} : { tools: tools.map(({ function: tool }) => toolOf(tool)) }),
    ...toolChoiceOf(choice, request.parallel_tool_calls, tools !== undefined && tools.length > 0),
    ...(format === undefined ? {} : { output_config: { format } }),
  };
}

function refuseUnsupported(request: ChatRequest, provider: string): void {
  const { temperature = 0, frequency_penalty = 0, presence_penalty = 0, response_format: format } = request;
  const refuse = (what: string): never => {
    throw new ModelError('unsupported', `${provider}: Anthropic's API has no ${what}`, { provider });
  };
  if (temperature > 1) refuse(`temperature above 1: it is ${temperature}`);
  if (frequency_penalty !== 0) refuse('frequency_penalty');
  if (presence_penalty !== 0) refuse('presence_penalty');
  if (format?.type === 'json_object') refuse('response_format json_object: use json_schema');
}

type Instruction = Message & { readonly role: 'system' | 'developer' };

const isInstruction = (message: Message): message is Instruction =>
  message.role === 'system' || message.role === 'developer';

const textOf = (content: Content): string =>
  typeof content === 'string' ? content : content.map(({ text }) => text).join('');

interface Turn {
  readonly role: 'user' | 'assistant';
  readonly content: readonly Anthropic.ContentBlockParam[];
}

function messageOf(message: Message, provider: string): Turn {
  switch (message.role) {
    case 'assistant': {
      const calls = (message.tool_calls ?? []).map((call) => toolUseOf(call, provider));
      return { role: 'assistant', content: [...textBlocks(message.content ?? ''), ...calls] };
    }
    case 'tool': {
      const { tool_call_id: id, content } = message;
      return { role: 'user', content: [{ type: 'tool_result', tool_use_id: id, content: textOf(content) }] };
    }
    default:
      return { role: 'user', content: textBlocks(message.content) };
  }
}

/** The API refuses empty text. */
const textBlocks = (content: Content): Anthropic.TextBlockParam[] => {
  const text = textOf(content);
  return text === '' ? [] : [{ type: 'text', text }];
};

function toolUseOf({ id, function: called }: ToolCall, provider: string): Anthropic.ToolUseBlockParam {
  try {
    return { type: 'tool_use', id, name: called.name, input: JSON.parse(called.arguments || '{}') };
  } catch (cause) {
    const message = `${provider}: the arguments of tool call ${id} are no JSON: send what the model wrote`;
    throw new ModelError('invalid_request', message, { provider, cause });
  }
}

/** Results of several tools belong into one message, and roles take turns. */
function merged(turns: readonly Turn[]): Anthropic.MessageParam[] {
  const joined: { role: Turn['role']; content: Anthropic.ContentBlockParam[] }[] = [];
  for (const { role, content } of turns) {
    if (content.length === 0) continue;
    const last = joined.at(-1);
    if (last?.role === role) last.content.push(...content);
    else joined.push({ role, content: [...content] });
  }
  return joined;
}

type FunctionTool = NonNullable<ChatRequest['tools']>[number]['function'];

const toolOf = ({ name, description, parameters, strict }: FunctionTool): Anthropic.Tool => ({
  name,
  input_schema: { ...parameters, type: 'object' },
  ...(description === undefined ? {} : { description }),
  ...(strict == null ? {} : { strict }),
});

function toolChoiceOf(
  choice: ToolChoice | undefined,
  parallel: boolean | undefined,
  hasTools: boolean,
): Pick<Anthropic.MessageCreateParamsStreaming, 'tool_choice'> {
  if (!hasTools || (choice === undefined && parallel !== false)) return {};
  const single = parallel === false ? { disable_parallel_tool_use: true } : {};
  if (choice === 'none') return { tool_choice: { type: 'none' } };
  if (choice === 'required') return { tool_choice: { type: 'any', ...single } };
  if (typeof choice === 'object') return { tool_choice: { type: 'tool', name: choice.function.name, ...single } };
  return { tool_choice: { type: 'auto', ...single } };
}

/** Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs */
function formatOf(format: ResponseFormat | undefined): Anthropic.JSONOutputFormat | undefined {
  if (format?.type !== 'json_schema') return undefined;
  return { type: 'json_schema', schema: { ...format.json_schema.schema } };
}
