export { type ModelsConfig, parseModels, readModelsFile } from './config.ts';
export { keepingConnections } from './connections.ts';
export { isTooLong, ModelError, type ModelErrorCode } from './errors.ts';
export { createModels, type ModelsOptions } from './models.ts';
export {
  type CallBudget,
  type CallOptions,
  type ChatChunk,
  type ChatRequest,
  type ChatTimings,
  type Content,
  type Embeddings,
  type EmbedRequest,
  type Estimate,
  type FinishReason,
  isLast,
  type Lane,
  type LastChunk,
  type Message,
  type ModelDescription,
  type Models,
  type Provider,
  type ResponseFormat,
  type Spent,
  type TextPart,
  type TokenUsage,
  type Tool,
  type ToolCall,
  type ToolCallDelta,
  type ToolChoice,
} from './types.ts';
