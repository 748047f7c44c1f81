import { Construct } from 'constructs';
import { instanceName } from '../core/labels.ts';
import { type Environment, type SecretMount, workloadAudience, workloadTokenPath } from '../core/pod.ts';
import type { ApiServerAddress, Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { dnsLabel, InvalidPropError, integerBetween } from '../core/validate.ts';
import { type Connectable, type Connection, ServiceAddress } from '../core/workload.ts';
import type { ObjectStore } from '../object-store/object-store.ts';
import { RayCluster, type RayRenderer } from '../ray/ray-cluster.ts';
import { LINEAGE_KEY, modelsBucket } from '../training/models.ts';

const HTTPS = 8000;
/** Name of the service in audiences and in the paths of tokens. */
const TARGET = 'slm';
/** Reader of the bucket of models. */
const READER = 'slm';
const PROMOTED = '/secrets/promoted';
/** The bundled model as it is and in 8 bits. */
const BUNDLED: readonly SlmModel[] = [{ name: 'soma-tiny' }, { name: 'soma-tiny-q8', quantize: 'q8_0' }];

/** One model among those that are served side by side, in replicas of its own. */
export interface SlmModel {
  /** Name of the model in requests. */
  readonly name: string;
  /**
   * A GGUF file or a directory with a model, inside the image.
   * @default '/models/bundled.gguf'
   */
  readonly path?: string;
  /**
   * Takes the matrices in 8 bits: half of the size, nearly the same words.
   * @default as they are in the file
   */
  readonly quantize?: 'q8_0';
  /** Conversations that one replica generates at once. @default 4 */
  readonly slots?: number;
  /** Threads for each token. @default 1 */
  readonly threads?: number;
  /** Tokens of a conversation. @default what the model was trained for */
  readonly context?: number;
  /** Replicas that are always there. @default 1 */
  readonly minReplicas?: number;
  /** Replicas at most: Ray adds them as requests come, where the nodes have room. @default as many as `minReplicas` */
  readonly maxReplicas?: number;
  /**
   * Requests for each replica, waiting ones included, that Ray aims at.
   * @default three quarters of the slots
   */
  readonly targetOngoingRequests?: number;
  /** Share of a core that Ray sets aside for a replica. @default 0.5 */
  readonly cpus?: number;
}

/** Options of {@link Slm}. */
export interface SlmProps {
  /** Image `somagent/ray-slm`. */
  readonly image: string;
  /** Where the cluster's token and the certificate are asked for. */
  readonly plan: SecretPlan;
  /**
   * The models; clients that name none ask for the first.
   * @default `soma-tiny`, the bundled one, and `soma-tiny-q8`, the same in 8 bits
   */
  readonly models?: readonly SlmModel[];
  /**
   * The store with the models that training has promoted, each of which answers its tenant in place of the first model:
   * one with `modelsBucket`. Only with training in the same region: its key is what they are verified with.
   * @default promoted models are not served
   */
  readonly promoted?: ObjectStore;
  /**
   * Promoted models that are held at the same time, about 120 MB each; where there are more, those that somebody asks
   * for take the places of those that nobody has asked for in a minute. Only with `promoted`.
   * @default 4
   */
  readonly promotedPlaces?: number;
  /** Interactive requests that may wait for each model; more get 429. @default 64 */
  readonly queue?: number;
  /** Batch requests that may wait for each model; more get 429. @default 256 */
  readonly batchQueue?: number;
  /** Ray nodes beside the head. @default 0 */
  readonly workers?: number;
  /** Most Ray nodes beside the head; only with the operator. @default as many as `workers` */
  readonly maxWorkers?: number;
  /** How the cluster is made. @default 'pods' */
  readonly renderer?: RayRenderer;
  /** Of the head. @default those of {@link RayCluster} */
  readonly resources?: Resources;
  /** Where the Kubernetes API is: callers are verified with its keys. @default anywhere, ports 443 and 6443 */
  readonly apiServer?: ApiServerAddress;
}

/**
 * The language model: Ray Serve in front of llama.cpp, with OpenAI's chat API over HTTPS. Who is wired to it shows its
 * workload identity; there is no shared key.
 */
export class Slm extends Construct implements Connectable, Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = HTTPS;
  /** Base address of the API. */
  readonly url: string;
  /** Name of the first model in requests. */
  readonly model: string;
  /** Names of all models. */
  readonly models: readonly string[];
  readonly network: PodNetwork;
  readonly #instance: string;
  readonly #plan: SecretPlan;
  readonly #callers = new Set<string>();

  constructor(scope: Construct, id: string, props: SlmProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#plan = props.plan;
    const declared = declaredModels(props.models ?? BUNDLED);
    this.models = declared.map(({ name }) => name);
    this.model = this.models[0] as string;
    const namespace = placeOf(this).namespace;
    this.host = `${this.#instance}.${namespace}.svc`;
    this.url = `https://${this.host}:${HTTPS}/v1`;
    const cluster = this.#cluster(props, declared, namespace);
    this.network = cluster.network;
    // Its variables and secrets were needed before the network of the cluster was there.
    props.promoted?.bucketUser(modelsBucket.name, READER).connect(this.network);
    new ServiceAddress(this, 'address', {
      product: 'slm',
      instance: this.#instance,
      component: 'server',
      name: this.#instance,
      ports: { https: HTTPS },
      selector: cluster.selector,
    });
  }

  /** Admits the client, gives it address, authority and a token of its own, and puts it on the list of callers. */
  connect(client: PodNetwork): Connection {
    client.allowTo(this.network, [HTTPS]);
    this.#callers.add(client.workloadSubject());
    return {
      env: {
        SLM_URL: this.url,
        SLM_MODEL: this.model,
        SLM_TOKEN_FILE: workloadTokenPath(TARGET),
        SLM_CA_FILE: '/secrets/ca/ca.crt',
      },
      secrets: [{ path: '/secrets/ca', secret: this.#plan.authorityCertificate(client.namespace) }],
      workloadTokens: [{ target: TARGET }],
    };
  }

  #promotedSecrets({ promoted, plan }: SlmProps, namespace: string): readonly SecretMount[] {
    if (promoted === undefined) return [];
    return [
      { path: `${PROMOTED}/credentials`, secret: promoted.credentials(READER, namespace) },
      { path: `${PROMOTED}/ca`, secret: plan.authorityCertificate(namespace) },
      { path: `${PROMOTED}/key`, secret: plan.publicKey(LINEAGE_KEY, namespace) },
    ];
  }

  #cluster(props: SlmProps, declared: readonly Declared[], namespace: string): RayCluster {
    const health = { scheme: 'https', port: HTTPS, path: '/healthz', timeoutSeconds: 10 } as const;
    const certificate = this.#plan.certificate(
      `${this.#instance}-tls`,
      { commonName: this.#instance, dnsNames: [this.#instance, this.host], ipAddresses: [], usages: ['server'] },
      namespace,
    );
    return new RayCluster(this, this.#instance, {
      image: props.image,
      plan: props.plan,
      ...(props.renderer && { renderer: props.renderer }),
      ...(props.workers !== undefined && { workers: props.workers }),
      ...(props.resources && { headResources: props.resources }),
      ...(props.maxWorkers !== undefined && { maxWorkers: props.maxWorkers }),
      env: {
        SLM_MODELS: JSON.stringify(declared),
        SLM_QUEUE: String(integerBetween('queue', props.queue ?? 64, 0, 10_000)),
        SLM_BATCH_QUEUE: String(integerBetween('batchQueue', props.batchQueue ?? 256, 0, 100_000)),
        SLM_TLS_DIR: '/secrets/slm-tls',
        SLM_WORKLOAD_AUDIENCE: workloadAudience(TARGET),
        SLM_WORKLOAD_CALLERS: { late: () => [...this.#callers].sort().join(',') },
        ...(props.promoted && promotedVariables(props.promoted, props.promotedPlaces ?? 4)),
      },
      secrets: [{ path: '/secrets/slm-tls', secret: certificate }, ...this.#promotedSecrets(props, namespace)],
      workloadKeys: props.apiServer ?? {},
      application: {
        name: 'slm',
        importPath: 'somagent_slm.app:app',
        headCommand: ['python3', '-m', 'somagent_slm.head'],
        port: HTTPS,
        probes: {
          readiness: { ...health, periodSeconds: 5 },
          // A generation under load may be slow: only half a minute without any answer is a dead server.
          liveness: { ...health, periodSeconds: 15, failureThreshold: 4 },
          startup: { ...health, periodSeconds: 3, failureThreshold: 200 },
        },
      },
    });
  }
}

/** In the words of the server: where promoted models are, and what they are verified with. */
function promotedVariables(store: ObjectStore, places: number): Environment {
  return {
    SLM_PROMOTED_PLACES: String(integerBetween('promotedPlaces', places, 1, 1024)),
    SLM_PROMOTED_URL: store.bucketUrl(modelsBucket.name),
    SLM_PROMOTED_CREDENTIALS_DIR: `${PROMOTED}/credentials`,
    SLM_PROMOTED_CA_FILE: `${PROMOTED}/ca/ca.crt`,
    SLM_PROMOTED_KEY_FILE: `${PROMOTED}/key/public.pem`,
  };
}

/** A model with its defaults, in the words of the server's `SLM_MODELS`. */
interface Declared {
  readonly name: string;
  readonly path: string;
  readonly slots: number;
  readonly minReplicas: number;
  readonly maxReplicas: number;
  readonly targetOngoing: number;
}

function declaredModels(models: readonly SlmModel[]): readonly Declared[] {
  if (models.length === 0) {
    throw new InvalidPropError('models', '[]', 'at least one model', "Leave it out, or give [{ name: 'soma-tiny' }].");
  }
  const names = models.map(({ name }) => name);
  const repeated = names.find((name, index) => names.indexOf(name) !== index);
  if (repeated !== undefined) {
    throw new InvalidPropError('models', repeated, 'each name once', 'Requests name their model: rename one.');
  }
  return models.map((model, index) => declaredModel(model, `models[${index}]`));
}

function declaredModel({ targetOngoingRequests, ...model }: SlmModel, field: string): Declared {
  const slots = integerBetween(`${field}.slots`, model.slots ?? 4, 1, 64);
  const minReplicas = integerBetween(`${field}.minReplicas`, model.minReplicas ?? 1, 1, 64);
  return {
    ...model,
    name: dnsLabel(`${field}.name`, model.name),
    path: model.path ?? '/models/bundled.gguf',
    slots,
    minReplicas,
    maxReplicas: integerBetween(`${field}.maxReplicas`, model.maxReplicas ?? minReplicas, minReplicas, 64),
    targetOngoing: targetOngoingRequests ?? slots * 0.75,
  };
}
