import { Construct } from 'constructs';
import { instanceName } from '../core/labels.ts';
import { workloadAudience, workloadTokenPath } from '../core/pod.ts';
import type { ApiServerAddress, Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { integerBetween } from '../core/validate.ts';
import { type Connectable, type Connection, ServiceAddress } from '../core/workload.ts';
import { RayCluster, type RayRenderer } from '../ray/ray-cluster.ts';

const HTTPS = 8000;
/** Name of the service in audiences and in the paths of tokens. */
const TARGET = 'slm';

/** Options of {@link Slm}. */
export interface SlmProps {
  /** Image `somagent/ray-slm`. */
  readonly image: string;
  /** Where the cluster's token and the certificate are asked for. */
  readonly plan: SecretPlan;
  /**
   * Name of the model in requests.
   * @default 'soma-tiny'
   */
  readonly model?: string;
  /**
   * A GGUF file or a directory with a model, inside the image.
   * @default '/models/bundled.gguf'
   */
  readonly modelPath?: string;
  /**
   * Conversations that are generated at once.
   * @default 4
   */
  readonly slots?: number;
  /** Copies of the model. @default 1 */
  readonly replicas?: number;
  /** Ray nodes beside the head. @default 0 */
  readonly workers?: number;
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
  /** Name of the model in requests. */
  readonly model: string;
  readonly network: PodNetwork;
  readonly #instance: string;
  readonly #plan: SecretPlan;
  readonly #callers = new Set<string>();

  constructor(scope: Construct, id: string, props: SlmProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#plan = props.plan;
    this.model = props.model ?? 'soma-tiny';
    const namespace = placeOf(this).namespace;
    this.host = `${this.#instance}.${namespace}.svc`;
    this.url = `https://${this.host}:${HTTPS}/v1`;
    const cluster = this.#cluster(props, namespace);
    this.network = cluster.network;
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

  #cluster(props: SlmProps, namespace: string): RayCluster {
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
      env: {
        SLM_MODEL_PATH: props.modelPath ?? '/models/bundled.gguf',
        SLM_MODEL_NAME: this.model,
        SLM_SLOTS: String(integerBetween('slots', props.slots ?? 4, 1, 64)),
        SLM_REPLICAS: String(integerBetween('replicas', props.replicas ?? 1, 1, 64)),
        SLM_TLS_DIR: '/secrets/slm-tls',
        SLM_WORKLOAD_AUDIENCE: workloadAudience(TARGET),
        SLM_WORKLOAD_CALLERS: { late: () => [...this.#callers].sort().join(',') },
      },
      secrets: [{ path: '/secrets/slm-tls', secret: certificate }],
      workloadKeys: props.apiServer ?? {},
      application: {
        name: 'slm',
        importPath: 'somagent_slm.app:app',
        headCommand: ['python3', '-m', 'somagent_slm.head'],
        port: HTTPS,
        tls: { certificateFile: '/secrets/slm-tls/tls.crt', keyFile: '/secrets/slm-tls/tls.key' },
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
