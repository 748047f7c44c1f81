import { Construct } from 'constructs';
import { instanceName, selectorLabels } from '../core/labels.ts';
import { workloadAudience, workloadTokenPath } from '../core/pod.ts';
import type { ApiServerAddress, Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { servingCertificate } from '../core/serving-certificate.ts';
import { integerBetween } from '../core/validate.ts';
import { type Connectable, type Connection, DeploymentWorkload, ServiceAddress } from '../core/workload.ts';

const HTTPS = 8443;
/** Name of the service in audiences and in the paths of tokens. */
const TARGET = 'embeddings';

/** Options of {@link Embeddings}. */
export interface EmbeddingsProps {
  /** Image `somagent/embeddings`. */
  readonly image: string;
  /** Where the certificate is asked for. */
  readonly plan: SecretPlan;
  /**
   * Name of the model in requests.
   * @default 'all-minilm-l6-v2'
   */
  readonly model?: string;
  /**
   * A sentence-transformers directory inside the image.
   * @default that of all-MiniLM-L6-v2
   */
  readonly modelPath?: string;
  /** Threads of the model. @default 1 */
  readonly threads?: number;
  /** Number of pods. @default 1 */
  readonly replicas?: number;
  /** Of each pod. @default 30m and 192Mi promised, 512Mi at most */
  readonly resources?: Resources;
  /** Where the Kubernetes API is: callers are verified with its keys. @default anywhere, ports 443 and 6443 */
  readonly apiServer?: ApiServerAddress;
}

/**
 * The embedding worker: sentences to vectors, with OpenAI's embeddings API over HTTPS. Who is wired to it shows its
 * workload identity; there is no shared key.
 */
export class Embeddings extends Construct implements Connectable, Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = HTTPS;
  /** Base address of the API. */
  readonly url: string;
  /** Name of the model in requests. */
  readonly model: string;
  readonly network: PodNetwork;
  readonly #instance: string;
  readonly #plan: SecretPlan;
  readonly #callers = new Set<string>();

  constructor(scope: Construct, id: string, props: EmbeddingsProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#plan = props.plan;
    this.model = props.model ?? 'all-minilm-l6-v2';
    const address = new ServiceAddress(this, 'address', {
      ...this.#identity(),
      name: this.#instance,
      ports: { https: HTTPS },
      selector: selectorLabels(this.#identity()),
    });
    this.host = address.host;
    this.url = `https://${this.host}:${HTTPS}/v1`;
    this.network = this.#server(props).network;
    this.network.allowToApiServer(props.apiServer);
  }

  /** Admits the client, gives it address, authority and a token of its own, and puts it on the list of callers. */
  connect(client: PodNetwork): Connection {
    client.allowTo(this.network, [HTTPS]);
    this.#callers.add(client.workloadSubject());
    return {
      env: {
        EMBEDDINGS_URL: this.url,
        EMBEDDINGS_MODEL: this.model,
        EMBEDDINGS_TOKEN_FILE: workloadTokenPath(TARGET),
        EMBEDDINGS_CA_FILE: '/secrets/ca/ca.crt',
      },
      secrets: [{ path: '/secrets/ca', secret: this.#plan.authorityCertificate(client.namespace) }],
      workloadTokens: [{ target: TARGET }],
    };
  }

  #identity() {
    return { product: 'embeddings', instance: this.#instance, component: 'server' };
  }

  #server(props: EmbeddingsProps): DeploymentWorkload {
    const { namespace } = placeOf(this);
    const health = { scheme: 'https', port: HTTPS, path: '/healthz', timeoutSeconds: 10 } as const;
    return new DeploymentWorkload(this, 'server', {
      ...this.#identity(),
      name: this.#instance,
      image: props.image,
      env: {
        EMBEDDINGS_MODEL: this.model,
        ...(props.modelPath !== undefined && { EMBEDDINGS_MODEL_DIR: props.modelPath }),
        EMBEDDINGS_PORT: String(HTTPS),
        EMBEDDINGS_TLS_DIR: '/secrets/embeddings-tls',
        EMBEDDINGS_THREADS: String(integerBetween('threads', props.threads ?? 1, 1, 64)),
        EMBEDDINGS_WORKLOAD_AUDIENCE: workloadAudience(TARGET),
        EMBEDDINGS_WORKLOAD_CALLERS: { late: () => [...this.#callers].sort().join(',') },
      },
      verifiesWorkloads: true,
      ports: { https: HTTPS },
      secrets: [
        {
          path: '/secrets/embeddings-tls',
          secret: servingCertificate(props.plan, { instance: this.#instance, host: this.host, namespace }, {}),
        },
      ],
      replicas: props.replicas ?? 1,
      resources: props.resources ?? { cpu: '30m', memory: '192Mi', memoryLimit: '512Mi' },
      probes: {
        readiness: { ...health, periodSeconds: 5 },
        liveness: { ...health, periodSeconds: 15, failureThreshold: 4 },
      },
    });
  }
}
