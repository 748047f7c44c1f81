import type { ModelConfig, Prices } from './config.ts';
import type { ChatRequest, EmbedRequest, TokenUsage } from './types.ts';

const free: Prices = { prompt: 0, completion: 0 };
const perMessage = 16;
const million = 1_000_000;

/** What tokens cost, whole millionths of a US dollar, rounded up: prices are per million tokens. */
export function costOf({ promptTokens, completionTokens }: TokenUsage, prices: Prices = free): number {
  return Math.ceil((promptTokens * prices.prompt + completionTokens * prices.completion) / million);
}

/**
 * The most tokens that a prompt can have: tokenizers work on bytes and make a token of one byte or more; templates add
 * a few to each message.
 */
export function promptBound(request: ChatRequest | EmbedRequest): number {
  if ('input' in request) return request.input.reduce((sum, text) => sum + Buffer.byteLength(text) + perMessage, 0);
  const { messages, tools = [], response_format: format } = request;
  const texts = messages.map(({ content = '', ...rest }) => bytesOf(content) + bytesOf(rest) + perMessage);
  const extra = tools.length === 0 && format === undefined ? 0 : bytesOf({ tools, format });
  return texts.reduce((sum, bytes) => sum + bytes, perMessage) + extra;
}

const bytesOf = (value: unknown): number =>
  Buffer.byteLength(typeof value === 'string' ? value : JSON.stringify(value ?? ''));

/** The most that an answer can have. */
export const completionBound = (request: ChatRequest | EmbedRequest, { maxTokens }: ModelConfig): number =>
  'input' in request ? 0 : (request.max_tokens ?? maxTokens);
