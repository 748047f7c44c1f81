/** A page that a person would see. */
export interface Page {
  readonly url: string;
  readonly status: number;
  readonly text: string;
}

const longestWay = 15;

/** What a browser does in Keycloak's pages, without scripts: it keeps cookies, follows redirects and sends forms. */
export class Browser {
  readonly #cookies = new Map<string, string>();

  /** Goes to an address and on to wherever it leads. */
  open(url: string): Promise<Page> {
    return this.#go(url, {});
  }

  /** Sends the form of a page with these fields; hidden fields are sent along. @throws when there is no form */
  submit(page: Page, fields: Readonly<Record<string, string>>): Promise<Page> {
    const action = /<form[^>]*\saction="([^"]+)"/.exec(page.text)?.[1];
    if (action === undefined) throw new Error(`no form on ${page.url} (${page.status}): ${page.text.slice(0, 500)}`);
    const hidden = [...page.text.matchAll(/<input[^>]*type="hidden"[^>]*>/g)].map(([tag]) => [
      /name="([^"]*)"/.exec(tag)?.[1] ?? '',
      unescaped(/value="([^"]*)"/.exec(tag)?.[1] ?? ''),
    ]);
    const body = new URLSearchParams({ ...Object.fromEntries(hidden), ...fields });
    return this.#go(new URL(unescaped(action), page.url).href, { method: 'POST', body });
  }

  async #go(start: string, first: RequestInit): Promise<Page> {
    let url = start;
    let init = first;
    for (let step = 0; step < longestWay; step += 1) {
      const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
      const response = await fetch(url, { ...init, headers: { cookie }, redirect: 'manual' });
      this.#keep(response);
      const to = response.headers.get('location');
      if (response.status < 300 || response.status >= 400 || to === null) {
        return { url, status: response.status, text: await response.text() };
      }
      url = new URL(to, url).href;
      init = {};
    }
    throw new Error(`${start} leads in a circle, at last to ${url}`);
  }

  #keep(response: Response): void {
    for (const line of response.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      if (/max-age=0/i.test(line)) this.#cookies.delete(name);
      else this.#cookies.set(name, value);
    }
  }
}

const unescaped = (text: string): string =>
  text.replaceAll('&amp;', '&').replaceAll('&#39;', "'").replaceAll('&quot;', '"');

/** Signs a person in with user name and password, from the page at which the browser arrived. */
export function signIn(browser: Browser, page: Page, username: string, password: string): Promise<Page> {
  return browser.submit(page, { username, password, credentialId: '' });
}
