import * as pulumi from '@pulumi/pulumi';
import resources from '@pulumi/pulumi/proto/resource_pb.js';
import { describe, type Manifest } from '@somagent/components/bridge/index.ts';

/** A Kubernetes object as the program registered it. */
export interface RegisteredObject {
  readonly urn: string;
  readonly manifest: Manifest;
  /** The names of the enclosing components, outermost first: `['local', 'local-data', 'local-data-postgres']`. */
  readonly components: readonly string[];
  /** Where the object goes: the provider it was registered with. */
  readonly provider: RegisteredProvider;
  /** Paths of the values that are secret, such as `data.password`. */
  readonly secrets: readonly string[];
}

/** A Kubernetes provider of the program: the cluster of one region. */
export interface RegisteredProvider {
  readonly name: string;
  readonly context?: string;
  readonly kubeconfig?: string;
}

/** What a run of the program does with each object; the SDK starts dependants when the promise settles. */
export type ObjectHandler = (object: RegisteredObject) => Promise<void>;

/** A Pulumi program as a function: registers resources, returns the stack's outputs. */
export type Program = () => Promise<object>;

/** Options of {@link runProgram}. */
export interface RunOptions {
  readonly project: string;
  readonly stack: string;
  /** Configuration as the CLI passes it: `project:key` to text, structures as JSON. */
  readonly config: Readonly<Record<string, string>>;
  readonly onObject: ObjectHandler;
  /** Rejects to abandon the run, e.g. when an object failed and nothing that could still be done is left. */
  readonly abandoned?: Promise<never>;
}

/** The outputs of a program that ran to its end. Secret outputs are left out and only named. */
export interface RunResult {
  readonly outputs: Readonly<Record<string, unknown>>;
  readonly secretOutputs: readonly string[];
}

/**
 * Executes a program through the SDK's in-process hook (the one that its unit tests use), with a monitor that hands
 * each object to `onObject` instead of an engine. An object is registered when the SDK has seen everything that it
 * depends on settle, so the order of the real engine is kept without a second description of it.
 *
 * @throws what the program threw, or why it was abandoned
 */
export async function runProgram(program: Program, options: RunOptions): Promise<RunResult> {
  const failure = new Failure();
  const monitor = new InProcessMonitor(options, failure);
  await attach(monitor, options);
  // The SDK takes a stack trace for every promise that it makes; half of the processor time of a run goes there.
  // For every resource it even lifts the limit, to tell an engine where it is declared: this limit cannot be lifted.
  const { stackTraceLimit } = Error;
  Object.defineProperty(Error, 'stackTraceLimit', { configurable: true, get: () => 0, set: () => undefined });
  process.on('unhandledRejection', failure.report);
  try {
    await Promise.race([
      finished(program, failure),
      failure.promise,
      ...(options.abandoned ? [options.abandoned] : []),
    ]);
    return splitSecrets(monitor.stackOutputs);
  } catch (error) {
    // Registrations that will never settle would be reported as leaks when the process ends.
    await attach(monitor, options);
    throw error;
  } finally {
    const limit = { configurable: true, enumerable: true, writable: true, value: stackTraceLimit };
    Object.defineProperty(Error, 'stackTraceLimit', limit);
    process.off('unhandledRejection', failure.report);
  }
}

async function attach(monitor: InProcessMonitor, { project, stack, config }: RunOptions): Promise<void> {
  await pulumi.runtime.setMocks({ call: refuseCall, newResource: refuseResource }, project, stack);
  pulumi.runtime.setAllConfig({ ...config });
  const { registerResource, registerResourceOutputs } = monitor;
  Object.assign(pulumi.runtime.getMonitor() as object, { registerResource, registerResourceOutputs });
}

async function finished(program: Program, failure: Failure): Promise<void> {
  await pulumi.runtime.runInPulumiStack(() => program().catch(failure.hold));
  await pulumi.runtime.disconnect();
}

/**
 * The first thing that went wrong in a run. The SDK turns an error into rejections of everything that depends on it,
 * each reported by itself; so errors are kept from it, and what waits for them waits for ever.
 */
class Failure {
  readonly promise: Promise<never>;
  readonly report: (error: unknown) => void;

  constructor() {
    const { promise, reject } = Promise.withResolvers<never>();
    promise.catch(() => undefined);
    this.promise = promise;
    this.report = (error) => reject(error instanceof Error ? error : new Error(String(error)));
  }

  readonly hold = (error: unknown): Promise<never> => {
    this.report(error);
    return new Promise(() => undefined);
  };
}

function refuseCall(call: pulumi.runtime.MockCallArgs): never {
  throw new Error(`the program calls ${call.token}, which needs the Pulumi engine; move it out of the program`);
}

function refuseResource(resource: pulumi.runtime.MockResourceArgs): never {
  throw new Error(
    `the program reads ${resource.type} '${resource.name}' from a provider, which needs the Pulumi engine`,
  );
}

type Callback = (error: Error | null, response?: unknown) => void;

/** The part of the engine's protocol that registers resources. Everything else is answered by the SDK's own hook. */
class InProcessMonitor {
  stackOutputs: Record<string, unknown> = {};
  readonly #options: RunOptions;
  readonly #components = new Map<string, readonly string[]>();
  readonly #providers = new Map<string, RegisteredProvider>();
  readonly #urns = new Set<string>();

  readonly #failure: Failure;

  constructor(options: RunOptions, failure: Failure) {
    this.#options = options;
    this.#failure = failure;
  }

  readonly registerResource = (request: resources.RegisterResourceRequest, callback: Callback): void => {
    this.#register(request)
      .catch(this.#failure.hold)
      .then((response) => callback(null, response));
  };

  readonly registerResourceOutputs = (request: resources.RegisterResourceOutputsRequest, callback: Callback): void => {
    if (request.getUrn().includes('::pulumi:pulumi:Stack::')) {
      this.stackOutputs = (request.getOutputs()?.toJavaScript() ?? {}) as Record<string, unknown>;
    }
    callback(null, {});
  };

  async #register(request: resources.RegisterResourceRequest): Promise<resources.RegisterResourceResponse> {
    const urn = this.#urn(request);
    if (this.#urns.has(urn)) throw new Error(`two resources have the name '${request.getName()}' (${urn}); rename one`);
    this.#urns.add(urn);
    const type = request.getType();
    if (type === 'pulumi:providers:kubernetes') this.#providers.set(urn, providerOf(request));
    else if (!request.getCustom()) this.#components.set(urn, this.#pathOf(request));
    else if (type.startsWith('kubernetes:')) await this.#options.onObject(this.#objectOf(urn, request));
    else
      throw new Error(
        `resource '${request.getName()}' is a ${type}; without the Pulumi CLI only Kubernetes objects can be made`,
      );
    return response(urn, request);
  }

  #urn(request: resources.RegisterResourceRequest): string {
    const parentType = request.getParent().split('::')[2];
    const qualified = parentType === undefined || parentType === stackType ? '' : `${parentType}$`;
    return `urn:pulumi:${this.#options.stack}::${this.#options.project}::${qualified}${request.getType()}::${request.getName()}`;
  }

  #pathOf(request: resources.RegisterResourceRequest): readonly string[] {
    if (request.getType() === stackType) return [];
    return [...(this.#components.get(request.getParent()) ?? []), request.getName()];
  }

  #objectOf(urn: string, request: resources.RegisterResourceRequest): RegisteredObject {
    const secrets: string[] = [];
    const manifest = revealed(request.getObject()?.toJavaScript() ?? {}, [], secrets) as Manifest;
    return {
      urn,
      manifest,
      secrets,
      components: this.#components.get(request.getParent()) ?? [],
      provider: this.#providerOf(request, manifest),
    };
  }

  #providerOf(request: resources.RegisterResourceRequest, manifest: Manifest): RegisteredProvider {
    const provider = this.#providers.get(request.getProvider().split('::').slice(0, 4).join('::'));
    if (provider !== undefined) return provider;
    throw new Error(
      `${describe(manifest)} has no explicit provider, so its region is unknown; pass { provider } to it`,
    );
  }
}

const stackType = 'pulumi:pulumi:Stack';

function providerOf(request: resources.RegisterResourceRequest): RegisteredProvider {
  const inputs = (request.getObject()?.toJavaScript() ?? {}) as Record<string, unknown>;
  const text = (key: string): Record<string, string> => {
    const value = inputs[key];
    return typeof value === 'string' && value !== '' ? { [key]: value } : {};
  };
  return { name: request.getName(), ...text('context'), ...text('kubeconfig') };
}

function response(urn: string, request: resources.RegisterResourceRequest): resources.RegisterResourceResponse {
  const answer = new resources.RegisterResourceResponse();
  answer.setUrn(urn);
  answer.setId(request.getCustom() ? request.getName() : '');
  const object = request.getObject();
  if (object !== undefined) answer.setObject(object);
  return answer;
}

/** The SDK's marks on the wire. Source: sdk/nodejs/runtime/rpc.ts. */
const signatureKey = '4dabf18193072939515e22adb298388d';
const secretSignature = '1b47061264138c4ac30d75fd1eb44270';

function isSecret(value: object): value is { readonly value: unknown } {
  return (value as Record<string, unknown>)[signatureKey] === secretSignature;
}

/** Takes the secret marks off, noting where they were. */
function revealed(value: unknown, path: readonly string[], secrets: string[]): unknown {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map((item, index) => revealed(item, [...path, `${index}`], secrets));
  if (isSecret(value)) {
    secrets.push(path.join('.'));
    return revealed(value.value, path, secrets);
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, revealed(item, [...path, key], secrets)]));
}

function splitSecrets(outputs: Readonly<Record<string, unknown>>): RunResult {
  const open: Record<string, unknown> = {};
  const secretOutputs: string[] = [];
  for (const [key, value] of Object.entries(outputs)) {
    const secrets: string[] = [];
    const plain = revealed(value, [key], secrets);
    if (secrets.length === 0) open[key] = plain;
    else secretOutputs.push(key);
  }
  return { outputs: open, secretOutputs };
}
